"""How much each site counts in the versions of late, and how much it should by the job's own weighting rule.

    influence  the site's part of what commits apply: c / sum of c, c the sum of its factors in `applied`, what is
               remembered of it included; 0 where that is negative
    share      w / sum of w over the sites that are there, w = num_examples^power, bounded by num_examples_ratio

Both are running means over commits; one commit with K updates of N sites ages them by exp(-K / (N TURNS)), so that they
look back over about TURNS updates of each site, whatever the buffer. An influence under LOW or over HIGH times the
share is news, once, until it has been back between BACK and 1 / BACK. A commit costs its contributors, not N: what ages
is computed when it is looked at.

Nothing here is a fact or changes one. Who is there is not in the facts: until the caller says it, all sites are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

TURNS = 20.0
FEWEST_TURNS = 10.0
"""A site is judged once each site has had time for so many updates since it came."""
LOW, HIGH, BACK = 0.5, 2.0, 0.6
KEEP_COSINE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteInfluence:
    """Of one site, 0 to 1 both; cosine: running mean, of its deltas and the versions' mean deltas, None: not measured.

    ratio: influence / share; None: it has no share yet.
    """

    influence: float
    share: float
    cosine: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.influence / self.share if self.share > 0.0 else None


@dataclass(slots=True, kw_only=True)
class _Site:
    """`applied` and `due` are sums as of the age `at`; `seen`: the sum of 1 / W then. since: turns when it came."""

    weight: float = 0.0
    applied: float = 0.0
    due: float = 0.0
    at: float = 0.0
    seen: float = 0.0
    there: bool = False
    since: float = 0.0
    told: bool = False


class Influence:
    """Of the sites of one job."""

    def __init__(self) -> None:
        self._sites: dict[str, _Site] = {}
        self._cosines: dict[str, float] = {}
        self._there: frozenset[str] | None = None
        self._whole = 0.0
        self._count = 0
        self._age = self._per_weight = self._commits = self._turns = self._looked_at = 0.0

    def on_folded(self, site: str, weight: float) -> None:
        """An update of a site came, whose w is now this."""
        one = self._sites.setdefault(site, _Site())
        self._catch_up(one)
        if one.there:
            self._whole -= one.weight
        one.weight = weight
        if one.there:
            self._whole += one.weight
        elif self._there is None or site in self._there:
            self._comes(one)

    def set_active(self, sites: Collection[str]) -> None:
        """Say which sites are there; the others have no share until they are back."""
        active = frozenset(sites)
        changed = self._sites.keys() if self._there is None else active ^ self._there
        self._there = active
        for site in changed & self._sites.keys():
            one = self._sites[site]
            self._catch_up(one)
            if site in active and not one.there:
                self._comes(one)
            elif site not in active and one.there:
                self._goes(one)

    def on_committed(self, factors: Mapping[str, float], *, updates: int) -> None:
        """A version of so many updates applies so much of each site's deltas, see `applied.by_site`."""
        whole = math.fsum(factor for factor in factors.values() if factor > 0.0)
        if not whole or not self._count or self._whole <= 0.0:
            return
        turn = updates / self._count
        decay = math.exp(-turn / TURNS)
        self._age += turn / TURNS
        self._turns += turn
        self._per_weight = self._per_weight * decay + 1.0 / self._whole
        self._commits = self._commits * decay + 1.0
        for site, factor in factors.items():
            if factor > 0.0 and (one := self._sites.get(site)) is not None:
                self._catch_up(one)
                one.applied += factor / whole

    def note_cosines(self, cosines: Mapping[str, float]) -> None:
        """The deltas of these sites and the mean delta of the version they made."""
        for site, cosine in cosines.items():
            before = self._cosines.get(site, cosine)
            self._cosines[site] = KEEP_COSINE * before + (1.0 - KEEP_COSINE) * cosine

    def of(self, site: str) -> SiteInfluence | None:
        """Of one site; None while no version was made since it sent something."""
        one = self._sites.get(site)
        if one is None or not self._commits:
            return None
        self._catch_up(one)
        cosine = self._cosines.get(site)
        return SiteInfluence(influence=one.applied / self._commits, share=one.due / self._commits, cosine=cosine)

    def news(self) -> list[tuple[str, SiteInfluence]]:
        """Sites whose influence has left what is their share, or is back; looked for once a turn of all sites."""
        if self._turns < self._looked_at + 1.0 or self._count < 2:
            return []
        self._looked_at = self._turns
        found = []
        for site, one in self._sites.items():
            measured = self.of(site)
            if not one.there or measured is None or self._turns - one.since < FEWEST_TURNS:
                continue
            ratio = measured.ratio
            if ratio is None:
                continue
            if not one.told and not LOW <= ratio <= HIGH:
                one.told = True
                found.append((site, measured))
            elif one.told and BACK <= ratio <= 1.0 / BACK:
                one.told = False
                found.append((site, measured))
        return found

    def _comes(self, one: _Site) -> None:
        one.there, one.since = True, self._turns
        self._whole += one.weight
        self._count += 1

    def _goes(self, one: _Site) -> None:
        one.there = False
        self._whole -= one.weight
        self._count -= 1
        if not self._count:
            self._whole = 0.0  # what rounding has left

    def _catch_up(self, one: _Site) -> None:
        decay = math.exp(one.at - self._age)
        one.applied *= decay
        one.due *= decay
        if one.there:
            one.due += one.weight * (self._per_weight - one.seen * decay)
        one.at, one.seen = self._age, self._per_weight
