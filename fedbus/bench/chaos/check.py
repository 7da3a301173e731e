"""What must hold after a run, whatever was done to it: what sites recorded against what the ledger says.

What lives here: the comparison, as functions on data; each returns one sentence for every breach. What may not: files,
processes (see `evidence`).

    lost        an update whose publish was confirmed to its site is in no fact and no receipt of the ledger
    counted     an update is folded twice, or folded and refused, or in two versions, or folded and in none
    versions    made and published versions are 0, 1, 2, ... without a gap
    receipts    what sites were told is what the ledger says
    sites       what a site holds never goes back within one process of it
    stuck       who is connected, with everybody up, sends updates again
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import assert_never

from fedbus.core.protocol.messages import JobState, Outcome
from fedbus.core.rules.facts import Committed, Fact, Folded, Refused

# A trainer imports torch first, perhaps beside others on a busy machine.
GRACE_S = 25.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRecord:
    """What one site wrote down about a job: updates confirmed to it, receipts `(update, outcome)`, versions held.

    `held` has one sequence for each process of the site, `published_at` the times of the confirms (seconds).
    """

    site: str
    confirmed: tuple[str, ...] = ()
    receipts: tuple[tuple[str, str], ...] = ()
    held: tuple[tuple[int, ...], ...] = ()
    published_at: tuple[float, ...] = ()
    connected_at: float = 0.0
    """When it last came to reach the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRecord:
    """What the ledger says about a job: facts in order, outcome of every decided update, published versions."""

    state: str
    facts: tuple[Fact, ...] = ()
    outcomes: Mapping[str, str] = field(default_factory=dict)
    published: tuple[int, ...] = ()

    @property
    def folded(self) -> list[str]:
        return [str(fact.update_id) for fact in self.facts if isinstance(fact, Folded)]

    @property
    def refused(self) -> list[str]:
        return [str(fact.update_id) for fact in self.facts if isinstance(fact, Refused)]

    @property
    def commits(self) -> list[Committed]:
        return [fact for fact in self.facts if isinstance(fact, Committed)]


def lost(sites: Iterable[SiteRecord], ledger: LedgerRecord) -> list[str]:
    """Updates that were confirmed to their site and never decided."""
    decided = {*ledger.folded, *ledger.refused, *ledger.outcomes}
    return [
        f"{update} was confirmed to {site.site} and neither folded nor refused"
        for site in sites
        for update in sorted(set(site.confirmed) - decided)
    ]


def counted_wrongly(ledger: LedgerRecord) -> list[str]:
    """Updates that do not count exactly once."""
    found = [f"{u} was folded {times} times" for u, times in Counter(ledger.folded).items() if times > 1]
    found += [f"{u} was refused {times} times" for u, times in Counter(ledger.refused).items() if times > 1]
    found += [f"{u} was folded and refused" for u in sorted({*ledger.folded} & {*ledger.refused})]
    in_versions = Counter(str(u) for commit in ledger.commits for u in commit.update_ids)
    found += [f"{u} is in {times} versions" for u, times in in_versions.items() if times > 1]
    return found + list(_buffers(ledger))


def _buffers(ledger: LedgerRecord) -> Iterator[str]:
    """A version is made of all that was folded since the one before it, in that order; nothing is left at the end."""
    buffer: list[str] = []
    for fact in ledger.facts:
        match fact:
            case Folded():
                buffer.append(str(fact.update_id))
            case Committed():
                made_of = [str(u) for u in fact.update_ids]
                if made_of != buffer:
                    yield f"version {fact.version} is made of {_some(made_of)}, folded were {_some(buffer)}"
                buffer = []
            case Refused():
                pass
            case _:
                assert_never(fact)
    # a job that is aborted leaves its buffer as it is
    if buffer and ledger.state == JobState.FINISHED:
        yield f"{_some(buffer)} folded after the last version, and in none"


def gaps(ledger: LedgerRecord) -> list[str]:
    """Versions that were not made one after the other, or not published."""
    made = [commit.version for commit in ledger.commits]
    expected = list(range(1, len(made) + 1))
    found = [] if made == expected else [f"versions were made in the order {_some(made)}"]
    missing = sorted({0, *made} - set(ledger.published))
    return found + [f"version {version} was made and never published" for version in missing]


def disagreements(sites: Iterable[SiteRecord], ledger: LedgerRecord) -> list[str]:
    """Receipts that say something else than the ledger; and facts without the receipt that belongs to them."""
    found = [
        f"{site.site} was told that {update} was {outcome}, the ledger says {ledger.outcomes.get(update, 'nothing')}"
        for site in sites
        for update, outcome in sorted(set(site.receipts))
        if ledger.outcomes.get(update) != outcome
    ]
    facts = dict.fromkeys(ledger.folded, Outcome.FOLDED) | dict.fromkeys(ledger.refused, Outcome.REFUSED)
    return found + [
        f"{update} was {outcome}, its receipt says {ledger.outcomes.get(update, 'nothing')}"
        for update, outcome in facts.items()
        if ledger.outcomes.get(update) != outcome
    ]


def steps_back(sites: Iterable[SiteRecord]) -> list[str]:
    """Sites that held a version and then an older one."""
    return [
        f"{site.site} held version {after} after version {before}"
        for site in sites
        for held in site.held
        for before, after in pairwise(held)
        if after < before
    ]


def stuck(sites: Iterable[SiteRecord], *, healed_at: float, over_at: float) -> list[str]:
    """Sites that could reach the broker for GRACE_S before training was over, and sent nothing in that time.

    `healed_at`: from then on nothing was done to anybody, and the aggregator could reach the broker.
    """
    found = []
    for site in sites:
        able_at = max(healed_at, site.connected_at)
        if over_at - able_at >= GRACE_S and not any(at >= able_at for at in site.published_at):
            found.append(f"{site.site} was connected for {over_at - able_at:.0f} s before the end and sent no update")
    return found


def _some(things: Sequence[object], most: int = 6) -> str:
    """The first of many."""
    shown = ", ".join(map(str, things[:most])) or "none"
    return shown if len(things) <= most else f"{shown} and {len(things) - most} more"
