"""Which updates a commit applies, and how much of the delta of each: what a version is made of, site by site."""

from __future__ import annotations

from collections.abc import Iterator

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


def _times(terms: tuple[Term, ...], factor: float) -> Iterator[Term]:
    return (Term(update_id=term.update_id, factor=factor * term.factor) for term in terms)


def _divisor(fact: Committed, combination: Combination) -> float:
    """What a robust rule divides by."""
    sites = {term.update_id.site for term in combination.terms}
    return fact.normaliser if combination.rule == "mean" else float(len(sites))
