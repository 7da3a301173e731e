"""The global model at the aggregator: fold deltas, commit versions, and know exactly what the sites hold.

What lives here: the arithmetic of a job. What may not: decisions (see `core.aggregation`), files, messages.

Downlink with a hidden state (QAFeL, arXiv 2308.00263, algorithm 1): x are the params, h what every site holds,

    commit   x = server optimizer step (x, mean delta);   q = Q(x - h);   h += q;   publish q

so that what the down code rounds away stays in x - h and reaches the sites with a later version. Sites train from h,
their deltas are relative to h.

q is never whole in memory: h follows frame by frame while the frames are taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbus.core.frames import Code, FrameHeader
from fedbus.core.layout import Layout
from fedbus.errors import LayoutError
from fedbus.tensors import digest as digests
from fedbus.tensors.codec import DEFAULT_CHUNK_BYTES, decode_all_, decode_into_, encode, frame_count
from fedbus.tensors.fold import Accumulator
from fedbus.tensors.server_optimizer import ServerOptimizer
from fedbus.tensors.tiles import tiles

MODEL_COPIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the core asks about a delta: its Euclidean norm and whether every value is finite (else the norm is not)."""

    norm: float
    finite: bool


class GlobalModel:
    """Params, hidden params and the buffer of one job, all float32 [numel] on one device.

    Holds MODEL_COPIES model copies (params, hidden, the buffer's sum, scratch) plus the optimizer's moments: none for
    plain, one for momentum, two for Adam and Yogi. However many sites there are, and also while it starts, commits, is
    saved or restored: beyond the copies nothing larger than one frame and its elements is ever made.
    """

    def __init__(
        self,
        layout: Layout,
        flat_params: Tensor,
        optimizer: ServerOptimizer,
        *,
        down_code: Code,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
        hidden: Tensor | None = None,
    ) -> None:
        """Take `flat_params` over, and `hidden` (a copy of the params when None): they are the model's from now on."""
        if flat_params.dtype != torch.float32 or flat_params.shape != (layout.numel,):
            found = f"{flat_params.dtype} {list(flat_params.shape)}"
            raise LayoutError(f"expected a float32 vector of {layout.numel} elements, found {found}")
        self.layout = layout
        self.params = flat_params.detach().contiguous()
        self.hidden = self.params.clone() if hidden is None else hidden.detach().contiguous()
        self._optimizer = optimizer
        self._down_code = down_code
        self._chunk_bytes = chunk_bytes
        self._buffer = Accumulator(layout.numel, device=self.params.device)
        self._scratch = torch.zeros_like(self.params)
        self._behind = False

    @property
    def digest(self) -> str:
        """16 hex digits of the exact bits of `hidden`, as each site must find them; computed at each call."""
        self._check_caught_up()
        return digests.digest(self.hidden)

    def inspect_(self, frames: Iterable[bytes | memoryview]) -> Inspection:
        """Decode a delta into the scratch vector and look at it; nothing else changes.

        Raises DecodeError unless the frames are valid and cover [0, numel) exactly once, in order.
        """
        self._check_caught_up()
        decode_all_(self._scratch, frames, self.layout)
        # In float64 no finite float32 overflows, so the norm is finite exactly when every value is.
        squares = (torch.linalg.vector_norm(part, dtype=torch.float64).item() ** 2 for (part,) in tiles(self._scratch))
        norm = math.sqrt(sum(squares))
        return Inspection(norm=norm, finite=math.isfinite(norm))

    def fold_scratch_(self, weight: float) -> None:
        """Fold the delta inspected last, with the weight (staleness weight, examples, clip) that the core decided."""
        self._buffer.fold_(self._scratch, weight)

    def commit_(self, normaliser: float, seed: int) -> Iterator[bytes]:
        """Step, empty the buffer and return the frames that lead every site from the old `hidden` to the new one.

        A frame is made, and `hidden` goes that far, when it is taken; there are `delta_frames` of them. Until the last
        one is taken only more frames may be asked for: everything else raises RuntimeError. `seed` drives the down
        code's stochastic rounding. The scratch vector is overwritten.
        """
        self._check_caught_up()
        mean = self._buffer.mean(normaliser, out=self._scratch)
        self._behind = True
        self._optimizer.step_(self.params, mean)
        self._buffer.reset_()
        return self._catch_up_(torch.sub(self.params, self.hidden, out=self._scratch), seed)

    def _catch_up_(self, gap: Tensor, seed: int) -> Iterator[bytes]:
        for frame in self._encode(gap, self._down_code, seed):
            # decoding an fp32 frame would give the gap, bit for bit
            exact = self._down_code is Code.FP32
            header = FrameHeader.parse(frame) if exact else decode_into_(gap, frame, self.layout)
            place = slice(header.start, header.stop)
            self.hidden[place].add_(gap[place])
            self._behind = header.stop < self.layout.numel
            yield frame

    def _check_caught_up(self) -> None:
        if self._behind:
            raise RuntimeError("the frames of the last commit were not all taken: `hidden` lies between two versions")

    @property
    def delta_frames(self) -> int:
        """How many frames a commit has."""
        return frame_count(self.layout, self._down_code, chunk_bytes=self._chunk_bytes)

    @property
    def snapshot_frames(self) -> int:
        """How many frames a snapshot has."""
        return frame_count(self.layout, Code.FP32, chunk_bytes=self._chunk_bytes)

    def snapshot(self) -> Iterator[bytes]:
        """Yield `hidden`, exactly, as fp32 frames; do not commit meanwhile."""
        self._check_caught_up()
        return self._encode(self.hidden, Code.FP32, 0)

    def state(self) -> dict[str, Tensor]:
        """Return params, hidden and the optimizer's moments by name (not copies); the buffer is not part of it."""
        self._check_caught_up()
        moments = {f"optimizer.{name}": tensor for name, tensor in self._optimizer.state().items()}
        return {"params": self.params, "hidden": self.hidden, **moments}

    @classmethod
    def restore(
        cls,
        layout: Layout,
        state: Mapping[str, Tensor],
        optimizer: ServerOptimizer,
        *,
        down_code: Code,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ) -> GlobalModel:
        """Continue from what `state` returned, with an empty buffer and a fresh optimizer of the same kind.

        The tensors of `state` become the model's own. Raises LayoutError when a vector is missing or does not fit.
        """
        for name in ("params", "hidden"):
            found = state.get(name)
            if found is None or found.dtype != torch.float32 or found.shape != (layout.numel,):
                raise LayoutError(f"the checkpoint has no {name!r} of {layout.numel} elements: it is of another job")
        model = cls(
            layout, state["params"], optimizer, down_code=down_code, chunk_bytes=chunk_bytes, hidden=state["hidden"]
        )
        prefix = "optimizer."
        optimizer.load_state({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})
        return model

    def _encode(self, flat: Tensor, code: Code, seed: int) -> Iterator[bytes]:
        return encode(flat, self.layout, code, chunk_bytes=self._chunk_bytes, seed=seed, power_of_two=True)
