"""The global model at the aggregator: fold deltas, commit versions, and know exactly what the sites hold.

What lives here: the arithmetic of a job. What may not: decisions (see `core.aggregation`), files, messages.

Downlink with a hidden state (QAFeL, arXiv 2308.00263, algorithm 1): x are the params, h what every site holds,

    commit   x = server optimizer step (x, mean delta);   q = Q(x - h);   h += q;   publish q

so that what the down code rounds away stays in x - h and reaches the sites with a later version. Sites train from h,
their deltas are relative to h.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedbus.core.frames import Code
from fedbus.core.layout import Layout
from fedbus.errors import LayoutError
from fedbus.tensors import digest as digests
from fedbus.tensors.codec import DEFAULT_CHUNK_BYTES, decode_all_, encode
from fedbus.tensors.fold import Accumulator
from fedbus.tensors.server_optimizer import ServerOptimizer
from fedbus.tensors.tiles import tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the core asks about a delta: its Euclidean norm and whether every value is finite (else the norm is not)."""

    norm: float
    finite: bool


class GlobalModel:
    """Params, hidden params and the buffer of one job, all float32 [numel] on one device.

    Holds four model copies (params, hidden, the buffer's sum, scratch) plus the optimizer's moments (0, 1 or 2),
    however many sites there are; a commit also builds the frames it returns. `flat_params` is copied.
    """

    def __init__(
        self,
        layout: Layout,
        flat_params: Tensor,
        optimizer: ServerOptimizer,
        *,
        down_code: Code,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ) -> None:
        if flat_params.dtype != torch.float32 or flat_params.shape != (layout.numel,):
            found = f"{flat_params.dtype} {list(flat_params.shape)}"
            raise LayoutError(f"expected a float32 vector of {layout.numel} elements, found {found}")
        self.layout = layout
        self.params = flat_params.detach().clone(memory_format=torch.contiguous_format)
        self.hidden = self.params.clone()
        self._optimizer = optimizer
        self._down_code = down_code
        self._chunk_bytes = chunk_bytes
        self._buffer = Accumulator(layout.numel, device=self.params.device)
        self._scratch = torch.zeros_like(self.params)

    @property
    def digest(self) -> str:
        """16 hex digits of the exact bits of `hidden`, as each site must find them; computed at each call."""
        return digests.digest(self.hidden)

    def inspect_(self, frames: Iterable[bytes | memoryview]) -> Inspection:
        """Decode a delta into the scratch vector and look at it; nothing else changes.

        Raises DecodeError unless the frames are valid and cover [0, numel) exactly once, in order.
        """
        decode_all_(self._scratch, frames, self.layout)
        # In float64 no finite float32 overflows, so the norm is finite exactly when every value is.
        squares = (torch.linalg.vector_norm(part, dtype=torch.float64).item() ** 2 for (part,) in tiles(self._scratch))
        norm = math.sqrt(sum(squares))
        return Inspection(norm=norm, finite=math.isfinite(norm))

    def fold_scratch_(self, weight: float) -> None:
        """Fold the delta inspected last, with the weight (staleness weight, examples, clip) that the core decided."""
        self._buffer.fold_(self._scratch, weight)

    def commit_(self, normaliser: float, seed: int) -> list[bytes]:
        """Step, empty the buffer and return the frames that lead every site from the old `hidden` to the new one.

        `seed` drives the down code's stochastic rounding. The scratch vector is overwritten.
        """
        mean = self._buffer.mean(normaliser, out=self._scratch)
        self._optimizer.step_(self.params, mean)
        self._buffer.reset_()
        gap = torch.sub(self.params, self.hidden, out=self._scratch)
        frames = list(self._encode(gap, self._down_code, seed))
        if self._down_code is Code.FP32:
            self.hidden.add_(gap)  # what decoding the frames would give, bit for bit
        else:
            decode_all_(self.hidden, frames, self.layout, add=True)
        return frames

    def snapshot_frames(self) -> Iterator[bytes]:
        """Yield `hidden`, exactly, as fp32 frames; do not commit meanwhile."""
        return self._encode(self.hidden, Code.FP32, 0)

    def state(self) -> dict[str, Tensor]:
        """Return params, hidden and the optimizer's moments by name (not copies); the buffer is not part of it."""
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

        Raises LayoutError when a vector is missing or does not fit.
        """
        for name in ("params", "hidden"):
            if name not in state or state[name].shape != (layout.numel,):
                raise LayoutError(f"the checkpoint has no {name!r} of {layout.numel} elements: it is of another job")
        model = cls(layout, state["params"], optimizer, down_code=down_code, chunk_bytes=chunk_bytes)
        model.hidden.copy_(state["hidden"])
        prefix = "optimizer."
        optimizer.load_state({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})
        return model

    def _encode(self, flat: Tensor, code: Code, seed: int) -> Iterator[bytes]:
        return encode(flat, self.layout, code, chunk_bytes=self._chunk_bytes, seed=seed, power_of_two=True)
