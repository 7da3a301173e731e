"""Which updates the buffer and the memory sum of a job are made of, and how much of each: numbers that facts give.

What lives here: factors by update, by site. What may not: tensors (`tensors.global_model` does the same sums with
deltas), which rule wants a memory (see `strategies.calibrated`).

    buffer      per site a slot: the terms that its updates since the last commit have put into the buffer
    memory_sum  per site what is remembered of it: terms that say w h, its weight times its last slot

A term that is taken out is taken out with minus the very factor it is held with, so that what is left is exactly none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Committed, Fact, Folded, Term
from fedbus.errors import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What one site has in the buffer or in the memory sum.

    weight: of the site; for `count` updates their mean. version: the newest one of the model when it was made.
    """

    terms: tuple[Term, ...]
    weight: float
    count: int
    version: int

    def negative(self) -> tuple[Term, ...]:
        """The terms that take it out again."""
        return tuple(Term(update_id=term.update_id, factor=-term.factor) for term in self.terms)


class Memory:
    """Apply the facts of a job in order; facts that were refused here have changed nothing."""

    def __init__(self) -> None:
        self._buffer: dict[str, Slot] = {}
        self._sites: dict[str, Slot] = {}
        self._last: dict[str, Folded] = {}
        self._version = 0

    @property
    def buffer(self) -> Mapping[str, Slot]:
        """What every site has put into the buffer; read-only."""
        return MappingProxyType(self._buffer)

    @property
    def sites(self) -> Mapping[str, Slot]:
        """What is remembered of every site; read-only."""
        return MappingProxyType(self._sites)

    @property
    def last(self) -> Mapping[str, Folded]:
        """The update of every site that was folded last; read-only."""
        return MappingProxyType(self._last)

    def needed(self, *, last: bool = False) -> set[UpdateId]:
        """Updates that later facts may refer to; with `last`, also each site's last one."""
        slots = [*self._buffer.values(), *self._sites.values()]
        found = {term.update_id for slot in slots for term in slot.terms}
        return found | {fold.update_id for fold in self._last.values()} if last else found

    def apply(self, fact: Fact) -> None:
        """Change as a fact says. ProtocolError, and no change, when it does not fit what is held."""
        match fact:
            case Folded():
                self._fold(fact)
            case Committed():
                self._commit(fact)
            case _:
                pass

    def after(self, *, corrections: Collection[Term]) -> tuple[Term, ...]:
        """What the memory sum is made of once a commit with these corrections has remembered the buffer."""
        sites = self._corrected(corrections)
        for site, slot in self._buffer.items():
            sites[site] = self._replaced(sites.get(site), slot)
        return tuple(term for slot in sites.values() for term in slot.terms)

    def forget(self, sites: Collection[str]) -> None:
        """Drop what is held of these sites, as though they had never sent anything."""
        for held in (self._buffer, self._sites, self._last):
            for site in held.keys() & set(sites):
                del held[site]

    def _fold(self, fact: Folded) -> None:
        site = fact.update_id.site
        if any(term.update_id.site != site for term in fact.also):
            raise ProtocolError(f"update {fact.update_id} is recorded with terms of other sites")
        before = self._buffer.get(site)
        own = Term(update_id=fact.update_id, factor=fact.weight * fact.clip)
        old, count, weight = (before.terms, before.count, before.weight) if before else ((), 0, 0.0)
        self._buffer[site] = Slot(
            terms=_sum(old, (*fact.also, own)),
            weight=weight * count / (count + 1) + fact.weight,
            count=count + 1,
            version=self._version,
        )
        self._last[site] = fact

    def _commit(self, fact: Committed) -> None:
        self._sites = self._corrected(fact.corrections)
        self._version = fact.version
        if fact.remembers:
            for site, slot in self._buffer.items():
                self._remember(site, slot)
        self._buffer = {}

    def _remember(self, site: str, slot: Slot) -> None:
        self._sites[site] = self._replaced(self._sites.pop(site, None), slot)

    def _replaced(self, held: Slot | None, slot: Slot) -> Slot:
        """What is remembered of a site after its slot in the buffer was added to it."""
        terms = _sum(held.terms if held else (), slot.terms)
        return Slot(terms=terms, weight=slot.weight, count=slot.count, version=self._version)

    def _corrected(self, corrections: Collection[Term]) -> dict[str, Slot]:
        """What is remembered after corrections: those below 0 take a term out, those above put a site's last one in."""
        found = dict(self._sites)
        for term in corrections:
            site, last = term.update_id.site, self._last.get(term.update_id.site)
            held = found.pop(site, None)
            if held is not None:
                terms = _sum(held.terms, (term,))
                if term.factor >= 0 or len(terms) == len(held.terms):
                    raise ProtocolError(f"a correction of update {term.update_id} does not fit what is remembered")
                if terms:
                    found[site] = Slot(terms=terms, weight=held.weight, count=held.count, version=held.version)
            elif last is None or last.update_id != term.update_id or term.factor <= 0 or last.clip <= 0:
                raise ProtocolError(f"a correction adds update {term.update_id}, which is not the last of {site}")
            else:
                found[site] = Slot(terms=(term,), weight=term.factor / last.clip, count=1, version=self._version)
        return found


def _sum(held: tuple[Term, ...], added: Collection[Term]) -> tuple[Term, ...]:
    """Add terms by update, in order; those that come to 0 are gone."""
    factors = {term.update_id: term.factor for term in held}
    for term in added:
        factors[term.update_id] = factors.get(term.update_id, 0.0) + term.factor
    return tuple(Term(update_id=update, factor=factor) for update, factor in factors.items() if factor != 0.0)
