"""The numbers of every site of a job, and which sites are active, with medians that no decision has to take anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from fedbus.core.rules.peers import OTHERS, Peers, bounded_fewest
from fedbus.core.rules.site_stats import SiteStats
from fedbus.core.rules.sorted_numbers import ExactSum, SortedNumbers

_NOTHING_YET = SiteStats()


class _Columns:
    """Of a group of sites: their median norms, their examples, their periods, and how often all of them send."""

    def __init__(self) -> None:
        self.norms = SortedNumbers[float]()
        self.examples = SortedNumbers[int]()
        self.periods = SortedNumbers[float]()
        self.rate = ExactSum()
        self._rates: dict[str, float] = {}

    def put(self, site: str, stats: SiteStats) -> None:
        period_s = stats.period_s or None
        self.norms.put(site, stats.usual_norm)
        self.examples.put(site, stats.num_examples or None)
        self.periods.put(site, period_s)
        if (old := self._rates.pop(site, None)) is not None:
            self.rate.add(old, times=-1)
        if period_s is not None:
            self._rates[site] = 1.0 / period_s
            self.rate.add(self._rates[site])


class SiteTable:
    """Sites that ever had an update decided, and those that train now. A change of one costs O(log sites)."""

    def __init__(self) -> None:
        self._stats: dict[str, SiteStats] = {}
        self._active: frozenset[str] = frozenset()
        self._all_sites, self._active_sites = _Columns(), _Columns()

    @property
    def stats(self) -> Mapping[str, SiteStats]:
        """Numbers of every site that ever had an update decided; read-only."""
        return MappingProxyType(self._stats)

    @property
    def active(self) -> frozenset[str]:
        return self._active

    def of(self, site: str) -> SiteStats:
        """Return the numbers of one site; all zero for a site that never had an update decided."""
        return self._stats.get(site, _NOTHING_YET)

    def put(self, site: str, stats: SiteStats) -> None:
        """Set the numbers of a site."""
        folded = stats.folded != self.of(site).folded
        self._stats[site] = stats
        if folded:
            self._all_sites.put(site, stats)
            if site in self._active:
                self._active_sites.put(site, stats)

    def set_active(self, sites: Collection[str]) -> None:
        """Say which sites train now."""
        active = frozenset(sites)
        for site in self._active - active:
            self._active_sites.put(site, _NOTHING_YET)
        for site in active - self._active:
            self._active_sites.put(site, self.of(site))
        self._active = active

    def peers(self, site: str) -> Peers:
        """Return what bounds a site: the other active sites; with too few of them that have sent something, all."""
        enough = self._active_sites.norms.count_without(site) >= OTHERS
        others = self._active_sites if enough else self._all_sites
        return Peers(
            usual_norm=others.norms.median_without(site, least=OTHERS),
            usual_examples=others.examples.median_low_without(site, least=OTHERS),
            usual_period_s=others.periods.median_without(site, least=OTHERS),
        )

    def active_norm(self, site: str, *, least: int) -> float | None:
        """Return the median of the other active sites' median norms; None with fewer than `least` of them."""
        return self._active_sites.norms.median_without(site, least=least)

    def fewest_examples(self, arrived: int, *, power: float, most_ratio: float | None) -> float:
        """Return `peers.fewest_examples` of the active sites and of an update that arrived."""
        fewest, middle = self._active_sites.examples.least_and_median_low_with(arrived)
        return bounded_fewest(fewest, middle, power=power, most_ratio=most_ratio)

    @property
    def arrival_gap_s(self) -> float | None:
        """Mean seconds between two arrivals that the active sites' periods promise; None while none is measured."""
        rate = self._active_sites.rate.value
        return 1.0 / rate if rate else None
