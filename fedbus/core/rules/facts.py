"""What the aggregation decides, as facts: its whole state is what they say, applied in order.

What lives here: the frozen records of a decision; the ledger stores them and a replay applies them again.
What may not: how a decision is made (see `aggregation`, `strategies`).

Every decision about tensors is a linear combination of update bodies, but for a robust rule's (see `Combination`).
What a replay does with the facts, in order, on three vectors (buffer, memory_sum, both zero at first, and what is
learnt of the params):

    Folded      buffer += weight clip delta(update_id) + sum(t.factor delta(t.update_id) for t in also)
    Committed   memory_sum += sum(t.factor delta(t.update_id) for t in corrections)
                mean delta  = buffer / normaliser + memory memory_sum       or what `combination` says
                memory_sum += buffer                                        only when `remembers`
                memory_sum  = sum(t.factor delta(t.update_id) for t in sums_anew)   only when there are any
                buffer      = 0
                params      = server optimizer's step, its lr times `step`, along the mean delta

State that is not learnt (running statistics, see `layout`) is no part of these vectors. Frame by frame

    Committed   values      = sum(t.factor values(t.update_id)) / sum(t.factor)   over the terms of `values` whose body
                                                                                  has the frame; else as they were

Fields that a release did not know yet have defaults which mean what it did: old ledgers stay readable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """So many times the delta of an update, as its body has it (not clipped)."""

    update_id: UpdateId
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The numbers of one update: all that a decision may look at.

    norm: the L2 norm of its delta. values_norm: the L2 norm of the values that it brings; None: it brings none. scale:
    of the model, see `peers.model_scale`; None: unknown.
    """

    update_id: UpdateId
    base_version: int
    effort: Effort
    norm: float
    values_norm: float | None = None
    scale: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The update is in the buffer: its delta is added with the factor `weight * clip`, and the terms of `also` are.

    weight: finite and > 0. clip: in [0, 1]; scales a delta that is too long down, and does not count in the
    normaliser. norm: of the delta as it came. num_examples: as many as its site is believed, see `peers`; effort: what
    it says. at: seconds on the clock of the caller. also: of updates of the same site that came before, what they count
    changes by. rebase: the oldest version that is worth training from, when the update is from one that was not; its
    site is told.
    """

    update_id: UpdateId
    base_version: int
    num_examples: int
    staleness: int
    weight: float
    clip: float
    norm: float
    at: float
    effort: Effort = field(default_factory=Effort)
    also: tuple[Term, ...] = ()
    rebase: int | None = None
    values_norm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The update will never be folded; its site is told the reason."""

    update_id: UpdateId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """A mean delta made of bodies instead of the buffer, by a robust rule over one delta of each site.

    terms: a site's delta is the sum of its terms. rule: 'mean' is the sum of these deltas / `Committed.normaliser`,
    'trimmed_mean' their mean without the `trim` lowest and highest of each coordinate, 'median' that of each. Without
    terms the mean delta is 0. excluded: sites of the buffer that are not believed.
    """

    rule: Literal["mean", "trimmed_mean", "median"]
    terms: tuple[Term, ...]
    trim: int = 0
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A new version from the buffer, which holds `update_ids`; see the head of this module.

    step: what the server optimizer's lr is multiplied by, > 0. rule: which rule weighs the updates from here on, when
    the job's strategy is one that chooses; empty: the same as before. rule_reason: why, in words. values: whose values
    become those of the version, and how much of each, > 0; none: they stay as they are. values_trim: leave out so many
    of the lowest and of the highest of each coordinate, and weigh the others alike. sums_anew: all that is remembered,
    to be summed once more from the bodies, for a sum keeps the rounding of whatever passed through it.
    """

    version: int
    update_ids: tuple[UpdateId, ...]
    normaliser: float
    reason: str
    at: float
    step: float = 1.0
    memory: float = 0.0
    corrections: tuple[Term, ...] = ()
    remembers: bool = False
    rule: str = ""
    rule_reason: str = ""
    combination: Combination | None = None
    values: tuple[Term, ...] = ()
    values_trim: int = 0
    sums_anew: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """The update was decided before; no fact, nothing changes."""

    update_id: UpdateId


Fact = Folded | Refused | Committed
