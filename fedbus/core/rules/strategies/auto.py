"""The default: calibrated where sites differ in speed, otherwise buffered; nothing to set."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from fedbus.core.rules.facts import Term
from fedbus.core.rules.peers import fewest_examples
from fedbus.core.rules.site_stats import SILENT, SiteStats
from fedbus.core.rules.strategies.base import Buffer, Evidence, Plan, Share, examples_weight
from fedbus.core.rules.strategies.buffered import Buffered
from fedbus.core.rules.strategies.calibrated import Calibrated
from fedbus.core.words import counted

BUFFERED, CALIBRATED = "buffered", "calibrated"
UNEQUAL, EQUAL = 2.0, 1.6
"""Calibrated from a ratio of UNEQUAL on, until it is below EQUAL."""
FLUSH_TIMES = 2.0
NOT_MEASURED = "buffered: until two sites have sent twice, nobody knows how fast they are"


@dataclass(frozen=True, slots=True, kw_only=True)
class Auto:
    """Chooses at every commit by r, the slowest active site's period over the fastest one's.

    r >= 2: `Calibrated`, which needs a memory but lets a slow site count fully; below 1.6: `Buffered` with b = 1, which
    is the faster one when all are as fast. A period is the median of a site's last gaps between two updates.
    When it turns to calibrated, what every active site sent last becomes its memory: so that body is always kept.
    Commits also FLUSH_TIMES as long after the first update as the buffer takes to fill at the sites' measured periods,
    with two sites in it: a site that is gone, and not yet known to be, stalls nobody.
    `settled`: why it is always buffered in this job; empty when it may choose.
    """

    buffered: Buffered
    calibrated: Calibrated
    settled: str = ""
    wait_for_new_version: bool = False

    def size(self, active: int) -> int:
        return self.calibrated.size(active)

    def share(self, evidence: Evidence) -> Share:
        return self._rule(evidence.rule).share(evidence)

    def plan(self, buffer: Buffer) -> Plan:
        plan = self._rule(buffer.rule).plan(buffer)
        active = {s: buffer.stats[s] for s in buffer.active if s in buffer.stats}
        rule, reason = (BUFFERED, self.settled) if self.settled else choose(buffer.rule, active)
        if buffer.rule != CALIBRATED:
            # what is left from a time when it was calibrated
            old = (term for slot in buffer.memory.sites.values() for term in slot.negative())
            plan = replace(plan, corrections=(*old, *(self._first_memory(buffer) if rule == CALIBRATED else ())))
        return plan if rule == buffer.rule else replace(plan, rule=rule, rule_reason=reason)

    def coefficients(self, buffer: Buffer, *, forgotten: Collection[str] = ()) -> tuple[float, float]:
        return self._rule(buffer.rule).coefficients(buffer, forgotten=forgotten)

    def fill(self, buffer: Buffer) -> tuple[int, int]:
        return self._rule(buffer.rule).fill(buffer)

    def due(self, buffer: Buffer, *, now: float) -> str | None:
        why = self._rule(buffer.rule).due(buffer, now=now)
        at = self.due_at(buffer)
        if why is None and at is not None and now >= at:
            return f"{counted(len(buffer.sites), 'site')} are in the buffer, which takes longer than usual to fill"
        return why

    def due_at(self, buffer: Buffer) -> float | None:
        rule = self._rule(buffer.rule)
        gap_s = buffer.arrival_gap_s
        if rule.flush_after_s is not None or gap_s is None or buffer.first_at is None or len(buffer.sites) < 2:
            return rule.due_at(buffer)
        return buffer.first_at + FLUSH_TIMES * self.size(len(buffer.active)) * gap_s

    def waiting_for(self, buffer: Buffer) -> str:
        return self._rule(buffer.rule).waiting_for(buffer)

    def _rule(self, name: str) -> Buffered | Calibrated:
        return self.calibrated if name == CALIBRATED else self.buffered

    def _first_memory(self, buffer: Buffer) -> tuple[Term, ...]:
        """What active sites sent last, unless that was long ago."""
        oldest = buffer.version - SILENT * len(buffer.active)
        last = {s: buffer.memory.last[s] for s in sorted(buffer.active & buffer.memory.last.keys())}
        recent = {s: f for s, f in last.items() if f.clip > 0 and f.base_version + f.staleness > oldest}
        power, ratio = self.calibrated.power, self.calibrated.most_ratio
        fewest = fewest_examples((f.num_examples for f in recent.values()), power=power, most_ratio=ratio)
        return tuple(
            Term(
                update_id=fold.update_id,
                factor=fold.clip * examples_weight(fold.num_examples, power=power, fewest=fewest, most_ratio=ratio),
            )
            for fold in recent.values()
        )


def choose(current: str, sites: Mapping[str, SiteStats]) -> tuple[str, str]:
    """Return the rule for these active sites and why; the `current` one and nothing while no two have a period."""
    periods = {site: period for site, stats in sites.items() if (period := stats.period_s)}
    if len(periods) < 2:
        return current, ""
    slowest, fastest = max(periods, key=periods.__getitem__), min(periods.values())
    ratio = periods[slowest] / fastest
    rule = CALIBRATED if ratio >= (EQUAL if current == CALIBRATED else UNEQUAL) else BUFFERED
    return rule, f"the slowest site, {slowest}, takes {ratio:.1f}x the fastest, measured over {len(periods)} sites"
