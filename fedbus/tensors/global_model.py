"""The global model at the aggregator: fold deltas, commit versions, and know exactly what the sites hold.

What lives here: the arithmetic of a job, which is what its facts say (see `rules.facts`: buffer, memory_sum, params).
What may not: decisions (see `core.rules.aggregation`), files, messages.

Downlink with a hidden state (QAFeL, arXiv 2308.00263, algorithm 1): x are the params, h what every site holds,

    commit   x = server optimizer step (x, mean delta);   q = Q(x - h);   h += q;   publish q

so that what the down code rounds away stays in x - h and reaches the sites with a later version. Sites train from h,
their deltas are relative to h. All of this is about what is learnt. State that is not (see `protocol.layout`) is
combined as values (see `values`) and published exactly: h = x there, and q holds what has changed.

q is never whole in memory: h follows frame by frame while the frames are taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code, FrameHeader
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Combination, Committed, Folded, Term
from fedbus.core.rules.peers import model_scale
from fedbus.errors import LayoutError
from fedbus.tensors import digest as digests
from fedbus.tensors import robust
from fedbus.tensors.codec import (
    DEFAULT_CHUNK_BYTES,
    changed_values,
    decode_change_,
    decode_fold_all_,
    decode_into_,
    encode,
    frame_count,
)
from fedbus.tensors.cosines import Cosines
from fedbus.tensors.fold import Accumulator
from fedbus.tensors.server_optimizer import ServerOptimizer
from fedbus.tensors.tiles import tiles
from fedbus.tensors.values import mean_values_, trimmed_values_

MODEL_COPIES = 4
MEMORY_COPIES = 1
"""One more, once a rule remembers what sites sent last: the memory sum."""

MEMORY = "memory"

Bodies = Callable[[UpdateId], Iterable[bytes | memoryview]]
"""Gives the frames of an update again, however often it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the core asks about an update: the norm of its delta, and whether that is finite, as its elements then are.

    values_norm: the norm of the values that it brings; None: it brings none. problem: why they are none, in words.
    scale: of the model it was sent for, see `GlobalModel.scale`.
    """

    norm: float
    finite: bool
    values_norm: float | None = None
    problem: str = ""
    scale: float | None = None


class GlobalModel:
    """Params and hidden params of one job, float32 [numel], and the buffer, [learnt_numel], all on one device.

    Holds MODEL_COPIES model copies (params, hidden, the buffer's sum, scratch) plus the optimizer's moments: none for
    plain, one for momentum, two for Adam and Yogi, three for FADAS; and MEMORY_COPIES from the first commit that
    remembers. However many sites there are, and also while it starts, commits, is saved or restored: beyond the copies
    nothing larger than one frame and its elements is ever made; for a robust rule, one of every body in the buffer.
    What sites sent last is not kept here but read again, from `bodies`.
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
        memory: Tensor | None = None,
    ) -> None:
        """Take `flat_params` over, `hidden` (None: a copy of the params) and `memory` (None: nothing is remembered)."""
        if flat_params.dtype != torch.float32 or flat_params.shape != (layout.numel,):
            found = f"{flat_params.dtype} {list(flat_params.shape)}"
            raise LayoutError(f"expected a float32 vector of {layout.numel} elements, found {found}")
        self.layout = layout
        self.params = flat_params.detach().contiguous()
        self.hidden = self.params.clone() if hidden is None else hidden.detach().contiguous()
        self._optimizer = optimizer
        self._down_code = down_code
        self._chunk_bytes = chunk_bytes
        self._buffer = Accumulator(layout.learnt_numel, device=self.params.device)
        self._memory = None if memory is None else Accumulator(layout.learnt_numel, of=memory.detach().contiguous())
        self._scratch = torch.zeros_like(self.params)
        self._learnt = slice(layout.value_numel, layout.numel)
        self._cosines = Cosines(layout.learnt_numel)
        variances = [spec.name for spec in layout.tensors if spec.is_value and spec.name.endswith("running_var")]
        self._variances = {name: place for name, place in layout.slices().items() if name in variances}
        self._changed: tuple[int, ...] = ()
        self._behind = False
        self._scale: float | None = None

    @property
    def spare(self) -> Tensor:
        """A vector, float32 [numel], that nobody needs while no update is inspected or folded and no version made."""
        self._check_caught_up()
        return self._scratch

    @property
    def scale(self) -> float:
        """What the lengths of deltas are measured by, see `core.rules.peers`; computed once a version."""
        if self._scale is None:
            self._scale = model_scale(_norm(self.params[self._learnt]), self.layout.learnt_numel)
        return self._scale

    @property
    def cosines(self) -> Mapping[str, float]:
        """How the deltas of the last commit's sites lie to its mean delta, see `fedbus.tensors.cosines`."""
        return self._cosines.last

    @property
    def digest(self) -> str:
        """16 hex digits of the exact bits of `hidden`, as each site must find them; computed at each call."""
        self._check_caught_up()
        return digests.digest(self.hidden)

    def inspect_(self, frames: Iterable[bytes | memoryview]) -> Inspection:
        """Decode an update into the scratch vector and look at it; nothing else changes.

        Raises DecodeError unless the frames are valid and in order, and cover what is learnt exactly once.
        """
        self._check_caught_up()
        came = decode_change_(self._scratch, frames, self.layout)
        norm = _norm(self._scratch[self._learnt])
        stops = {start: self.layout.value_stop(start) for start in came}
        parts = [_norm(self._scratch[start:stop]) for start, stop in stops.items()]
        values_norm = math.hypot(*parts) if parts else None
        return Inspection(
            norm=norm,
            scale=self.scale,
            finite=math.isfinite(norm),
            values_norm=values_norm,
            problem=self._impossible(stops) if math.isfinite(values_norm or 0.0) else "values are NaN or infinite",
        )

    def _impossible(self, came: Mapping[int, int | None]) -> str:
        """Why values that came can be none: a variance below 0 makes NaN of every score; empty when nothing is wrong.

        `came`: where the frames that came start and stop.
        """
        for name, (start, stop) in self._variances.items():
            for first, last in came.items():
                part = self._scratch[max(start, first) : min(stop, last or 0)]
                if part.numel() and bool((part < 0).any()):
                    return f"{name} has negative elements: a variance has none"
        return ""

    def fold_(self, fact: Folded, bodies: Bodies) -> None:
        """Fold the delta inspected last, which is that of `fact`, and the terms it comes with.

        DecodeError when a body is damaged; the buffer is of no use then.
        """
        self._buffer.fold_(self._scratch[self._learnt], fact.weight * fact.clip)
        self._cosines.fold(fact.update_id.site, self._scratch[self._learnt], fact.weight * fact.clip)
        for term in fact.also:
            self._add_(self._buffer, term, bodies)

    def gram(self, combination: Combination, bodies: Bodies) -> list[list[float]]:
        """Return the inner products [K, K] of the deltas of a combination's sites; changes nothing."""
        return robust.gram(_slots(combination, bodies), self.layout)

    def commit_(self, fact: Committed, bodies: Bodies) -> Iterator[bytes]:
        """Step, empty the buffer and return the frames that lead every site from the old `hidden` to the new one.

        A frame is made, and `hidden` goes that far, when it is taken; there are `delta_frames` of them. Until the last
        one is taken only more frames may be asked for: everything else raises RuntimeError. The scratch vector is
        overwritten.
        """
        self._check_caught_up()
        for term in fact.corrections:
            self._add_(self._remembered(), term, bodies)
        mean = self._mean(fact) if fact.combination is None else self._combined(fact, fact.combination, bodies)
        self._cosines.commit(mean)
        if fact.remembers:
            self._remembered().fold_(self._buffer.sum, 1.0)
        self._optimizer.step_(self.params[self._learnt], mean, fact.step)
        self._scale = None
        self._combine_values_(fact, bodies)
        self._sum_anew_(fact, bodies)
        self._buffer.reset_()
        self._behind = True
        return self._catch_up_()

    def _combine_values_(self, fact: Committed, bodies: Bodies) -> None:
        if fact.values_trim:
            found = [bodies(term.update_id) for term in fact.values]
            trimmed_values_(self.params, found, self.layout, trim=fact.values_trim)
        else:
            mean_values_(self.params, ((t.factor, bodies(t.update_id)) for t in fact.values), self.layout)
        self._changed = changed_values(self.params, self.hidden, self.layout)

    def _sum_anew_(self, fact: Committed, bodies: Bodies) -> None:
        if fact.sums_anew:
            self._remembered().reset_()
        for term in fact.sums_anew:
            self._add_(self._remembered(), term, bodies)

    def _mean(self, fact: Committed) -> Tensor:
        """The mean delta of a commit, in the scratch vector, from the memory sum as it is."""
        mean = self._buffer.mean(fact.normaliser, out=self._scratch[self._learnt])
        if self._memory is not None and fact.memory:
            for part, remembered in tiles(mean, self._memory.sum):
                part.add_(remembered * fact.memory)
        return mean

    def _combined(self, fact: Committed, combination: Combination, bodies: Bodies) -> Tensor:
        """The mean delta of a robust rule, in the scratch vector."""
        slots, out = _slots(combination, bodies), self._scratch[self._learnt]
        match combination.rule:
            case "mean":
                return robust.mean_(out, slots, self.layout, normaliser=fact.normaliser)
            case "trimmed_mean":
                return robust.trimmed_mean_(out, slots, self.layout, trim=combination.trim)
            case "median":
                return robust.median_(out, slots, self.layout)
            case _:
                assert_never(combination.rule)

    def _add_(self, total: Accumulator, term: Term, bodies: Bodies) -> None:
        """Add a term to a sum, frame by frame."""
        decode_fold_all_(total.sum, bodies(term.update_id), self.layout, term.factor)

    def _remembered(self) -> Accumulator:
        if self._memory is None:
            self._memory = Accumulator(self.layout.learnt_numel, device=self.params.device)
        return self._memory

    def _catch_up_(self) -> Iterator[bytes]:
        """Frames of the way from `hidden` to the params; `hidden` goes along as they are taken."""
        gap, values = self._scratch, slice(0, self.layout.value_numel)
        gap[values] = self.params[values]
        torch.sub(self.params[self._learnt], self.hidden[self._learnt], out=gap[self._learnt])
        for frame in self._encode(gap, self._down_code, changed=self._changed):
            # decoding an fp32 frame would give the gap, bit for bit
            exact = self._down_code is Code.FP32
            header = FrameHeader.parse(frame) if exact else decode_into_(gap, frame, self.layout)
            place = slice(header.start, header.stop)
            if header.start < self.layout.value_numel:
                self.hidden[place] = gap[place]
            else:
                self.hidden[place].add_(gap[place])
            self._behind = header.stop < self._last
            yield frame

    @property
    def _last(self) -> int:
        """Where the last frame of a version's delta stops."""
        if self.layout.learnt_numel:
            return self.layout.numel
        return self.layout.value_stop(self._changed[-1]) or 0

    def _check_caught_up(self) -> None:
        if self._behind:
            raise RuntimeError("the frames of the last commit were not all taken: `hidden` lies between two versions")

    @property
    def delta_frames(self) -> int:
        """How many frames the last commit has."""
        return frame_count(self.layout, self._down_code, chunk_bytes=self._chunk_bytes, changed=self._changed)

    @property
    def snapshot_frames(self) -> int:
        """How many frames a snapshot has."""
        return frame_count(self.layout, Code.FP32, chunk_bytes=self._chunk_bytes)

    def snapshot(self) -> Iterator[bytes]:
        """Yield `hidden`, exactly, as fp32 frames; do not commit meanwhile."""
        self._check_caught_up()
        return self._encode(self.hidden, Code.FP32)

    def state(self) -> dict[str, Tensor]:
        """Return params, hidden, memory and the optimizer's moments by name (not copies); not the buffer.

        There is no memory before the first commit that remembers.
        """
        self._check_caught_up()
        moments = {f"optimizer.{name}": tensor for name, tensor in self._optimizer.state().items()}
        memory = {} if self._memory is None else {MEMORY: self._memory.sum}
        return {"params": self.params, "hidden": self.hidden, **memory, **moments}

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
        numels = {"params": layout.numel, "hidden": layout.numel} | (
            {MEMORY: layout.learnt_numel} if MEMORY in state else {}
        )
        for name, numel in numels.items():
            found = state.get(name)
            if found is None or found.dtype != torch.float32 or found.shape != (numel,):
                raise LayoutError(f"the checkpoint has no {name!r} of {numel} elements: it is of another job")
        model = cls(
            layout,
            state["params"],
            optimizer,
            down_code=down_code,
            chunk_bytes=chunk_bytes,
            hidden=state["hidden"],
            memory=state.get(MEMORY),
        )
        prefix = "optimizer."
        optimizer.load_state({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})
        return model

    def _encode(self, flat: Tensor, code: Code, *, changed: tuple[int, ...] | None = None) -> Iterator[bytes]:
        return encode(flat, self.layout, code, chunk_bytes=self._chunk_bytes, seed=0, to_hidden=True, changed=changed)


def _slots(combination: Combination, bodies: Bodies) -> list[robust.Slot]:
    """One delta for each site, in the order of its first term."""
    by_site: dict[str, list[tuple[float, Iterable[bytes | memoryview]]]] = {}
    for term in combination.terms:
        by_site.setdefault(term.update_id.site, []).append((term.factor, bodies(term.update_id)))
    return [robust.Slot(bodies=tuple(of_site)) for of_site in by_site.values()]


def _norm(flat: Tensor) -> float:
    """Euclidean norm, summed in float64: no finite float32 overflows there, so it is finite when every element is."""
    squares = (torch.linalg.vector_norm(part, dtype=torch.float64).item() ** 2 for (part,) in tiles(flat))
    return math.sqrt(sum(squares))
