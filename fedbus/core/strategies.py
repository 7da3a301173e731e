"""Strategies: how much an update counts, and when the buffer becomes a new version.

What lives here: one frozen class per rule, pure functions of numbers. What may not: the state of a job (see
`aggregation`, which asks a strategy and records its answers as facts), tensors, staleness functions (see `staleness`).

    rule       weight of an update                    commit when                            normaliser
    buffered   n^p (1 + mean s)^b f(s)                the buffer holds K, or flush_after_s   sum of weights | sum of n^p
    fedasync   mixing f(s)                            at every update                        1
    sync       n^p f(s)                               k sites contributed, or deadline_s     sum of weights

n: num_examples; p: `num_examples_power`; s: staleness; f: staleness function; mean s: running mean of the site's s;
mean delta = sum(weight delta) / normaliser.
A new rule is a class with these methods, a spec in `jobspec_sections` and a line in `strategy_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from fedbus.core.facts import Folded
from fedbus.core.jobspec import BufferedSpec, FedAsyncSpec, JobSpec, SyncSpec
from fedbus.core.site_stats import SiteStats
from fedbus.core.staleness import staleness_function

MAX_BOOST = 3.0
"""The rate correction is at most MAX_BOOST * N / K, so that a site that is late on purpose gains little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a strategy may look at to weigh one update; `site` holds the numbers before this update."""

    num_examples: int
    staleness: int
    site: SiteStats
    active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """What a strategy may look at to decide on a commit; times in seconds on one clock.

    entries: folded since the last commit, in order. active: sites that train for the job now. first_at: when the
    first entry was folded. began_at: when the current version began.
    """

    entries: tuple[Folded, ...]
    active: frozenset[str]
    first_at: float | None
    began_at: float

    @property
    def sites(self) -> frozenset[str]:
        return frozenset(entry.update_id.site for entry in self.entries)


class Strategy(Protocol):
    """One aggregation rule; `wait_for_new_version`: a site trains again only from a version it has not trained from."""

    @property
    def wait_for_new_version(self) -> bool: ...

    def weight(self, evidence: Evidence) -> float:
        """Return the weight of an update, finite and > 0."""

    def normaliser(self, entries: Sequence[Folded]) -> float:
        """Return what the weighted sum of the entries' deltas is divided by, > 0."""

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        """Say why the buffer, which is not empty, is to be committed now; None when it is not."""

    def due_at(self, buffer: Buffer) -> float | None:
        """Return when the buffer will be due by time alone; None when only an update or a site's leave can make it."""

    def waiting_for(self, buffer: Buffer) -> str:
        """Say what the buffer waits for, in plain words."""


def examples_weight(num_examples: int, *, power: float) -> float:
    """Return num_examples^power; power 1 weighs by examples (FedAvg), 0 weighs all sites alike."""
    return math.pow(num_examples, power)


def sum_of_weights(entries: Sequence[Folded]) -> float:
    """Return the exactly rounded sum, which does not depend on the order."""
    return math.fsum(entry.weight for entry in entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffered:
    """FedBuff (Nguyen et al. 2022, arXiv 2106.06639): commit when K updates are in the buffer, whoever sent them.

    weight = n^p (1 + mean s)^b f(s). K = the given buffer or max(2, ceil(N / 3)), never more than the N active sites.
    `normalise` 'weights': divided by the sum of weights, so that late phases keep their step length. 'buffer': the
    textbook, divided by K; with p > 0 by the sum of n^p instead, which is the same mean with the sites' sizes evened
    out, so that staleness shortens the step and the unit of n does not.
    `rate_correction` b: a site that restarts at once sends one update per 1 + s versions, so b = 1 gives every site
    the same influence per unit of time; the running mean of s counts this update in.
    `flush_after_s`: also commit so long after the first update in the buffer, with what is there (at least that one).
    """

    power: float
    staleness_weight: Callable[[int], float]
    buffer: int | None = None
    flush_after_s: float | None = None
    normalise_by_weights: bool = True
    rate_correction: float = 0.0
    wait_for_new_version: bool = False

    def size(self, active: int) -> int:
        """Return K for so many active sites."""
        wanted = max(2, math.ceil(active / 3)) if self.buffer is None else self.buffer
        return max(1, min(wanted, active))

    def weight(self, evidence: Evidence) -> float:
        own = examples_weight(evidence.num_examples, power=self.power) * self.staleness_weight(evidence.staleness)
        if self.rate_correction == 0.0:
            return own
        cap = MAX_BOOST * max(1, evidence.active) / self.size(evidence.active)
        return own * math.pow(min(1.0 + evidence.site.staleness_with(evidence.staleness), cap), self.rate_correction)

    def normaliser(self, entries: Sequence[Folded]) -> float:
        if self.normalise_by_weights:
            return sum_of_weights(entries)
        return math.fsum(examples_weight(entry.num_examples, power=self.power) for entry in entries)

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        have, size = len(buffer.entries), self.size(len(buffer.active))
        if have >= size:
            return f"{have} of {size} updates are in the buffer"
        at = self.due_at(buffer)
        if at is not None and now >= at:
            return f"the first update waited {self.flush_after_s:g} s"
        return None

    def due_at(self, buffer: Buffer) -> float | None:
        if self.flush_after_s is None or buffer.first_at is None:
            return None
        return buffer.first_at + self.flush_after_s

    def waiting_for(self, buffer: Buffer) -> str:
        have, size = len(buffer.entries), self.size(len(buffer.active))
        return f"waiting for {counted(max(0, size - have), 'more update')} ({have} of {size} in the buffer)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAsync:
    """FedAsync (Xie et al. 2019, arXiv 1903.03934) in its delta form: x += mixing f(s) delta, a version per update.

    The paper mixes whole models, x = (1 - alpha) x + alpha y. That also pulls x back towards the old version that y
    began from, by alpha (x - base): after s versions one slow site undoes the work of all others. The delta form adds
    only what the site has learnt; for s = 0 the two are the same. num_examples has no say: `mixing` is the step.
    """

    mixing: float
    staleness_weight: Callable[[int], float]
    wait_for_new_version: bool = False

    def weight(self, evidence: Evidence) -> float:
        return self.mixing * self.staleness_weight(evidence.staleness)

    def normaliser(self, entries: Sequence[Folded]) -> float:
        return 1.0

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        return "every update makes a version"

    def due_at(self, buffer: Buffer) -> float | None:
        return None

    def waiting_for(self, buffer: Buffer) -> str:
        return "waiting for the next update"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """FedAvg (McMahan et al. 2017, arXiv 1602.05629) with k-of-n and a deadline.

    Commits when k distinct sites have contributed (never more than are active; k None: when every active site has), or
    `deadline_s` after the version began with at least one update; with none, at the first one after the deadline.
    A late update is folded into the version that is under way, weighted by its staleness: never thrown away.
    A site trains once per version.
    """

    power: float
    staleness_weight: Callable[[int], float]
    k: int | None = None
    deadline_s: float = 60.0
    wait_for_new_version: bool = True

    def weight(self, evidence: Evidence) -> float:
        return examples_weight(evidence.num_examples, power=self.power) * self.staleness_weight(evidence.staleness)

    def normaliser(self, entries: Sequence[Folded]) -> float:
        return sum_of_weights(entries)

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        there, missing = buffer.sites, self._missing(buffer)
        if not missing:
            return f"{counted(len(there), 'site')} contributed"
        if now >= buffer.began_at + self.deadline_s:
            return f"the deadline of {self.deadline_s:g} s passed with {counted(len(there), 'site')}"
        return None

    def due_at(self, buffer: Buffer) -> float | None:
        return buffer.began_at + self.deadline_s if buffer.entries else None

    def waiting_for(self, buffer: Buffer) -> str:
        return f"waiting for {counted(self._missing(buffer), 'more site')} ({len(buffer.sites)} contributed)"

    def _missing(self, buffer: Buffer) -> int:
        if self.k is None:
            return len(buffer.active - buffer.sites)
        return max(0, min(self.k, max(1, len(buffer.active))) - len(buffer.sites))


def counted(number: int, noun: str) -> str:
    """Return '1 site', '2 sites'."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def strategy_of(spec: JobSpec) -> Strategy:
    """Return the strategy that a job spec asks for."""
    power, function = spec.num_examples_power, staleness_function(spec.staleness)
    match spec.strategy:
        case BufferedSpec() as buffered:
            return Buffered(
                power=power,
                staleness_weight=function,
                buffer=buffered.buffer,
                flush_after_s=buffered.flush_after_s,
                normalise_by_weights=buffered.normalise == "weights",
                rate_correction=buffered.rate_correction,
            )
        case FedAsyncSpec() as fedasync:
            return FedAsync(mixing=fedasync.mixing, staleness_weight=function)
        case SyncSpec() as sync:
            return Sync(power=power, staleness_weight=function, k=sync.k, deadline_s=sync.deadline_s)
        case _:
            assert_never(spec.strategy)
