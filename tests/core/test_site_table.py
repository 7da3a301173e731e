"""The numbers of all sites: what is kept as they change is what the plain computation over all of them gives."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median, median_low

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fedbus.core.rules.attendance import Attendance
from fedbus.core.rules.peers import OTHERS, Peers, fewest_examples
from fedbus.core.rules.site_stats import SiteStats
from fedbus.core.rules.site_table import SiteTable

SITES = ("a", "b", "c", "d", "e", "f")
SITE = st.sampled_from(SITES)


class SiteTableMachine(RuleBasedStateMachine):
    """Sites come, go, send and are refused, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.attendance = SiteTable(), Attendance()
        self.stats: dict[str, SiteStats] = {}
        self.active: frozenset[str] = frozenset()
        self.contributed: set[str] = set()
        self.idle: set[str] = set()

    @rule(sites=st.frozensets(SITE))
    def sites_come_and_go(self, sites: frozenset[str]) -> None:
        self.active = sites
        self.table.set_active(sites)
        self.attendance.set_active(sites)

    @rule(site=SITE, norm=st.floats(0, 1e12), gap=st.none() | st.floats(0, 1e9), examples=st.integers(1, 10**12))
    def an_update_is_folded(self, site: str, norm: float, gap: float | None, examples: int) -> None:
        old = self.stats.get(site, SiteStats())
        self.stats[site] = replace(
            old,
            folded=old.folded + 1,
            norms=(*old.norms, norm)[-5:],
            gaps=(*old.gaps, *(() if gap is None else (gap,)))[-5:],
            num_examples=examples,
        )
        self.contributed.add(site)
        self.table.put(site, self.stats[site])
        self.attendance.on_folded(site)

    @rule(site=SITE)
    def an_update_is_refused(self, site: str) -> None:
        self.stats[site] = self.stats.get(site, SiteStats()).with_refused()
        self.idle.add(site)
        self.table.put(site, self.stats[site])
        self.attendance.set_idle(site)

    @rule()
    def a_version_is_made(self) -> None:
        self.contributed, self.idle = set(), set()
        self.attendance.on_committed()

    @invariant()
    def the_peers_of_every_site_are_those_of_a_look_at_all_sites(self) -> None:
        for site in SITES:
            known = {name: of for name, of in self.stats.items() if name != site and of.folded}
            there = [of for name, of in known.items() if name in self.active]
            others = there if len(there) >= OTHERS else list(known.values())
            norms = [median(of.norms) for of in others]
            examples = [of.num_examples for of in others]
            periods = [of.period_s for of in others if of.period_s]
            assert self.table.peers(site) == Peers(
                usual_norm=median(norms) if len(norms) >= OTHERS else None,
                usual_examples=median_low(examples) if len(examples) >= OTHERS else None,
                usual_period_s=median(periods) if len(periods) >= OTHERS else None,
            )
            here = [median(of.norms) for of in there]
            assert self.table.active_norm(site, least=1) == (median(here) if here else None)

    @invariant()
    def the_fewest_examples_are_those_of_all_active_sites(self) -> None:
        counts = [self.stats[site].num_examples for site in self.active if site in self.stats]
        for ratio in (None, 10.0):
            found = self.table.fewest_examples(7, power=0.5, most_ratio=ratio)
            assert found == fewest_examples([7, *(n for n in counts if n)], power=0.5, most_ratio=ratio)

    @invariant()
    def the_gap_between_arrivals_is_what_all_periods_promise(self) -> None:
        periods = [self.stats[site].period_s for site in self.active if site in self.stats]
        rates = [1.0 / period for period in periods if period]
        rate = math.inf if any(each > 1e300 for each in rates) else math.fsum(rates)
        if rate != math.inf:
            assert self.table.arrival_gap_s == (1.0 / rate if rate else None)

    @invariant()
    def who_is_awaited_is_active_and_neither_idle_nor_in_the_buffer(self) -> None:
        assert self.attendance.awaited == self.active - self.idle - self.contributed
        assert self.attendance.contributed == self.contributed


TestSiteTableMachine = SiteTableMachine.TestCase
TestSiteTableMachine.settings = settings(max_examples=60, stateful_step_count=30)


def test_a_refused_update_moves_no_median() -> None:
    table = SiteTable()
    for site in ("a", "b", "c"):
        table.put(site, SiteStats(folded=1, norms=(2.0,), num_examples=5))
    before = table.peers("a")
    table.put("b", table.of("b").with_refused())
    assert table.peers("a") == before
    assert table.stats["b"].refused == 1
