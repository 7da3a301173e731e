"""Facts of the aggregation as kind and JSON body of a row of the ledger, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from fedbus.core.protocol.effort import Effort, lifted
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import (
    Combination,
    Committed,
    Fact,
    Folded,
    Refused,
    Term,
)
from fedbus.errors import StoreError

FOLDED, REFUSED, COMMITTED = "folded", "refused", "committed"
_TERMS = ("corrections", "values", "sums_anew")
"""Fields of a commit that are terms."""


def to_row(fact: Fact) -> tuple[str, Mapping[str, Any]]:
    """Kind and JSON-able body of a fact."""
    match fact:
        case Folded():
            own = {"update_id": str(fact.update_id), "effort": _said(fact.effort)}
            return FOLDED, _flat(fact) | own | _terms_of("also", fact.also)
        case Refused():
            return REFUSED, {"update_id": str(fact.update_id), "reason": fact.reason}
        case Committed():
            ids = {"update_ids": [str(u) for u in fact.update_ids]}
            terms: dict[str, Any] = {}
            for name in _TERMS:
                terms |= _terms_of(name, getattr(fact, name))
            return COMMITTED, _flat(fact) | ids | terms | _combination_row(fact.combination)


def _flat(fact: Folded | Committed) -> dict[str, Any]:
    """Its fields; those that say nothing are left out, so that rows stay small and as earlier releases wrote them."""
    fields = ((field, getattr(fact, field.name)) for field in dataclasses.fields(fact))
    return {field.name: value for field, value in fields if value != field.default}


def _said(effort: Effort) -> dict[str, Any]:
    """What was said of it, but for the metrics: no decision follows from them, and the manifest's row has them.

    A restart reads all facts of a job, and how many metrics there are is the site's to say.
    """
    fields = ((field.name, getattr(effort, field.name)) for field in dataclasses.fields(effort))
    return {name: value for name, value in fields if value and name != "metrics"}


def _terms_of(name: str, terms: Iterable[Term]) -> dict[str, Any]:
    pairs = [(str(term.update_id), term.factor) for term in terms]
    return {name: pairs} if pairs else {}


def _terms(pairs: Iterable[tuple[str, float]]) -> tuple[Term, ...]:
    return tuple(Term(update_id=UpdateId.parse(update), factor=factor) for update, factor in pairs)


def _combination_row(combination: Combination | None) -> dict[str, Any]:
    if combination is None:
        return {}
    terms = _terms_of("terms", combination.terms)
    flat = {"rule": combination.rule, "trim": combination.trim, "excluded": list(combination.excluded)}
    return {"combination": flat | terms}


def _combination(row: Mapping[str, Any] | None) -> Combination | None:
    if row is None:
        return None
    return Combination(
        rule=row["rule"], terms=_terms(row.get("terms", ())), trim=row["trim"], excluded=tuple(row["excluded"])
    )


def from_row(kind: str, body: Mapping[str, Any], *, seq: int) -> Fact:
    """Read a fact back; `seq` is the row's number. Raises StoreError when the row is none."""
    try:
        body = dict(body)
        match kind:
            case "folded":
                body = lifted(body, stay={"num_examples"})
                own = {"update_id": UpdateId.parse(body["update_id"]), "effort": Effort(**body["effort"])}
                return Folded(**body | own | {"also": _terms(body.get("also", ()))})
            case "refused":
                return Refused(**body | {"update_id": UpdateId.parse(body["update_id"])})
            case "committed":
                ids = tuple(map(UpdateId.parse, body["update_ids"]))
                terms = {name: _terms(body.get(name, ())) for name in _TERMS}
                combination = _combination(body.get("combination"))
                return Committed(**body | terms | {"update_ids": ids, "combination": combination})
    except (KeyError, TypeError, ValueError) as exc:
        raise StoreError(f"fact {seq} of the ledger cannot be read: {exc}") from exc
    raise StoreError(f"fact {seq} of the ledger is of unknown kind {kind!r}: upgrade fedbus")
