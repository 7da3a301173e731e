"""Which updates a commit applies, and how much of the delta of each: what a version is made of, site by site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Combination, Committed, Term
from fedbus.core.rules.memory import Memory


def applied_by(fact: Committed, memory: Memory) -> Iterator[Term]:
    """The terms of a commit's step times its mean delta; `memory` as it is before the commit. An update may come twice.

    A trimmed mean or a median counts as the mean of its sites.
    """
    if fact.combination is not None:
        yield from _times(fact.combination.terms, fact.step / _divisor(fact, fact.combination))
    else:
        for slot in memory.buffer.values():
            yield from _times(slot.terms, fact.step / fact.normaliser)
    if fact.memory:
        for slot in memory.sites.values():
            yield from _times(slot.terms, fact.step * fact.memory)
        yield from _times(fact.corrections, fact.step * fact.memory)


def by_site(fact: Committed, memory: Memory, *, times: Mapping[UpdateId, float]) -> dict[str, float]:
    """How much of each site's deltas a commit applies, all its updates together; see `applied_by`.

    times: what to count the delta of an update with, 1 where it is not there. No term is made here, for a commit may
    look at what is remembered of thousands of sites.
    """
    found: dict[str, float] = {}
    if fact.combination is not None:
        _count(found, fact.combination.terms, fact.step / _divisor(fact, fact.combination), times)
    else:
        for slot in memory.buffer.values():
            _count(found, slot.terms, fact.step / fact.normaliser, times)
    if fact.memory:
        factor = fact.step * fact.memory
        for site, slot in memory.sites.items():
            whole = slot.terms[0].factor if len(slot.terms) == 1 else sum(term.factor for term in slot.terms)
            found[site] = found.get(site, 0.0) + factor * whole
        _count(found, fact.corrections, factor, times)
    return found


def _count(found: dict[str, float], terms: tuple[Term, ...], factor: float, times: Mapping[UpdateId, float]) -> None:
    for term in terms:
        site = term.update_id.site
        found[site] = found.get(site, 0.0) + factor * term.factor * times.get(term.update_id, 1.0)


def _times(terms: tuple[Term, ...], factor: float) -> Iterator[Term]:
    return (Term(update_id=term.update_id, factor=factor * term.factor) for term in terms)


def _divisor(fact: Committed, combination: Combination) -> float:
    """What a robust rule divides by."""
    sites = {term.update_id.site for term in combination.terms}
    return fact.normaliser if combination.rule == "mean" else float(len(sites))
