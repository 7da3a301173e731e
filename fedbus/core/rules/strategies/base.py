"""What every aggregation rule is asked and answers: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fedbus.core.rules.facts import Combination, Folded, Term
from fedbus.core.rules.memory import Memory, Slot
from fedbus.core.rules.site_stats import SiteStats
from fedbus.core.words import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a strategy may look at to weigh one update.

    site: numbers of its site before this update. active: how many sites train for the job. steps: local steps it took.
    fewest_examples: of the last update of each of them and of this one, see `peers`; None: unknown. slot: what its
    site has in the buffer already; remembered: and in the memory sum. rule: the one that weighs, of several.
    """

    num_examples: int
    staleness: int
    site: SiteStats
    active: int
    fewest_examples: float | None = None
    slot: Slot | None = None
    remembered: Slot | None = None
    rule: str = ""
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much an update counts: `Folded.weight` and `Folded.also`."""

    weight: float
    also: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """What a strategy may look at to decide on a commit; times in seconds on one clock.

    entries: folded since the last commit, in order; sites: of which sites. active: sites that train for the job now.
    awaited: those of them that are still to send for the next version. first_at: when the first entry was folded.
    began_at: when the current version, `version`, began. stats: numbers of each site. rule: the one that weighed the
    entries. arrival_gap_s: see `site_table`.
    """

    entries: Sequence[Folded]
    sites: Collection[str]
    active: frozenset[str]
    first_at: float | None
    began_at: float
    version: int = 0
    stats: Mapping[str, SiteStats] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory)
    rule: str = ""
    awaited: Collection[str] = frozenset()
    arrival_gap_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a commit makes of the buffer: the fields of `Committed` that are a rule's business."""

    normaliser: float
    memory: float = 0.0
    corrections: tuple[Term, ...] = ()
    remembers: bool = False
    rule: str = ""
    rule_reason: str = ""
    combination: Combination | None = None


class Strategy(Protocol):
    """One aggregation rule; `wait_for_new_version`: a site trains again only from a version it has not trained from."""

    @property
    def wait_for_new_version(self) -> bool: ...

    def share(self, evidence: Evidence) -> Share:
        """Return how much an update counts; its weight is finite and > 0."""

    def plan(self, buffer: Buffer) -> Plan:
        """Return what becomes of the buffer, which is not empty; its normaliser is finite and > 0."""

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        """Return normaliser and memory of `plan`, once what is remembered of the `forgotten` sites was taken out."""

    def size(self, active: int) -> int:
        """Return the size of the buffer that is aimed at with so many active sites."""

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        """Return how much of what makes a version is in the buffer, updates or sites, and how much is wanted."""

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        """Say why the buffer, which is not empty, is to be committed now; None when it is not."""

    def due_at(self, buffer: Buffer) -> float | None:
        """Return when the buffer will be due by time alone; None when only an update or a site's leave can make it."""

    def waiting_for(self, buffer: Buffer) -> str:
        """Say what the buffer waits for, in plain words."""


def buffer_words(fill: tuple[int, int], what: str) -> str:
    """What a buffer of `fill`, (have, size), waits for: 'waiting for 1 more update, buffer 1 of 2'."""
    have, size = fill
    full = f"buffer {have} of {size}"
    return full if have >= size else f"waiting for {counted(size - have, what)}, {full}"


def examples_weight(
    num_examples: int, *, power: float, fewest: float | None = None, most_ratio: float | None = None
) -> float:
    """Return num_examples^power; power 1 weighs by examples (FedAvg), 0 weighs all sites alike.

    At most `most_ratio` times what `fewest` examples weigh, when both are given: one large hospital does not decide
    alone.
    """
    own = math.pow(num_examples, power)
    if fewest is None or most_ratio is None:
        return own
    return min(own, most_ratio * math.pow(fewest, power))


def buffer_size(wanted: int | None, active: int) -> int:
    """Return K: as wanted, or max(2, ceil(N / 3)), and never more than the N active sites."""
    return max(1, min(max(2, math.ceil(active / 3)) if wanted is None else wanted, active))


def flush_at(buffer: Buffer, flush_after_s: float | None) -> float | None:
    """Return when a buffer is due by time alone: so many seconds after its first update; None: never."""
    return None if flush_after_s is None or buffer.first_at is None else buffer.first_at + flush_after_s


def flush_reason(buffer: Buffer, flush_after_s: float | None, *, now: float) -> str | None:
    """Say that the first update has waited `flush_after_s`; None while it has not."""
    at = flush_at(buffer, flush_after_s)
    return f"the first update waited {flush_after_s:g} s" if at is not None and now >= at else None
