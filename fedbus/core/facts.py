"""What the aggregation decides, as facts: its whole state is what they say, applied in order.

What lives here: the frozen records of a decision; the ledger stores them and a replay applies them again.
What may not: how a decision is made (see `aggregation`, `strategies`).
"""

from __future__ import annotations

from dataclasses import dataclass

from fedbus.core.messages import UpdateId


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """The numbers of one update: all that a decision may look at. `norm` is the L2 norm of its delta."""

    update_id: UpdateId
    base_version: int
    num_examples: int
    norm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """The update is in the buffer: its delta is added with the factor `weight * clip`.

    weight: finite and > 0. clip: in [0, 1]; scales a delta that is too long down, and does not count in the
    normaliser. norm: of the delta as it came. at: seconds on the clock of the caller.
    """

    update_id: UpdateId
    base_version: int
    num_examples: int
    staleness: int
    weight: float
    clip: float
    norm: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The update will never be folded; its site is told the reason."""

    update_id: UpdateId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A new version: mean delta = sum(weight * clip * delta over `update_ids`) / normaliser."""

    version: int
    update_ids: tuple[UpdateId, ...]
    normaliser: float
    reason: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """The update was decided before; no fact, nothing changes."""

    update_id: UpdateId


Fact = Folded | Refused | Committed
