"""Facts as rows of the ledger, and back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fedbus.core.protocol.effort import Effort
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
from fedbus.store.fact_rows import from_row, to_row


def update(sequence: int, site: str = "mercy") -> UpdateId:
    return UpdateId(site=site, incarnation="0123abcd", sequence=sequence)


def folded(sequence: int, site: str = "mercy", staleness: int = 0) -> Folded:
    return Folded(
        update_id=update(sequence, site),
        base_version=3,
        num_examples=100,
        staleness=staleness,
        weight=1 / 3,
        clip=0.1,
        norm=2.0**-40,
        at=1e9 + 1 / 7,
    )


def committed(version: int, *updates: UpdateId) -> Committed:
    return Committed(version=version, update_ids=updates, normaliser=2 / 3, reason="2 of 2 updates", at=12345.678)


TERMS = (Term(update_id=update(1), factor=-1 / 3), Term(update_id=update(2, "ucsf"), factor=0.1))
FACTS: list[tuple[Fact, str]] = [
    (folded(1), "folded"),
    (
        dataclasses.replace(folded(1), effort=Effort(num_examples=300, steps=7, travel=1 / 7), also=TERMS),
        "folded",
    ),
    (Refused(update_id=update(2), reason='body: "Größe"'), "refused"),
    (committed(4, update(1), update(3)), "committed"),
    (dataclasses.replace(folded(5, staleness=300), rebase=240), "folded"),
    (
        dataclasses.replace(
            committed(4, update(1), update(3)),
            combination=Combination(rule="trimmed_mean", terms=TERMS, trim=2, excluded=("ucsf",)),
        ),
        "committed",
    ),
    (dataclasses.replace(committed(4, update(1)), step=1 / 3, memory=-0.1, corrections=TERMS), "committed"),
    (dataclasses.replace(committed(4), remembers=True, rule="calibrated", rule_reason="as measured"), "committed"),
]


@pytest.mark.parametrize(("fact", "kind"), FACTS)
def test_a_fact_comes_back_to_the_bit_through_json(fact: Fact, kind: str) -> None:
    found, body = to_row(fact)
    assert found == kind
    assert from_row(kind, json.loads(json.dumps(body)), seq=1) == fact


def test_metrics_are_no_part_of_a_row_for_the_manifest_has_them() -> None:
    fact = dataclasses.replace(folded(1), effort=Effort(num_examples=3, metrics={f"m{n}": 0.5 for n in range(64)}))
    assert to_row(fact)[1]["effort"] == {"num_examples": 3}


def test_rows_of_releases_that_knew_no_memory_read_as_they_were() -> None:
    numbers = {"base_version": 3, "num_examples": 9, "staleness": 0, "weight": 3.0, "clip": 1.0, "norm": 2.0, "at": 1.5}
    fold = {"update_id": "mercy:0123abcd:1"} | numbers
    commit = {"version": 4, "update_ids": ["mercy:0123abcd:1"], "normaliser": 3.0, "reason": "full", "at": 2.0}

    folded, committed = from_row("folded", fold, seq=1), from_row("committed", commit, seq=2)

    effort = Effort(num_examples=9)
    assert folded == Folded(update_id=update(1), effort=effort, **numbers)
    assert committed == Committed(version=4, update_ids=(update(1),), normaliser=3.0, reason="full", at=2.0)
    # and are written again as they were, but for what they say of their making, which is in one piece now
    assert to_row(folded) == ("folded", fold | {"effort": {"num_examples": 9}})
    assert to_row(committed) == ("committed", commit)


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        ("forgotten", {}, "fact 7 of the ledger is of unknown kind 'forgotten': upgrade fedbus"),
        ("folded", {}, "fact 7 of the ledger cannot be read"),
        ("refused", {"update_id": "mercy", "reason": ""}, "is not site:incarnation:sequence"),
        ("refused", {"update_id": "mercy:0123abcd:1", "reason": "", "new": 1}, "new"),
        ("committed", {"update_ids": 3}, "fact 7 of the ledger cannot be read"),
        ("committed", {"update_ids": [], "corrections": [["mercy", 1.0]]}, "is not site:incarnation:sequence"),
    ],
)
def test_a_row_that_is_no_fact_is_an_error_that_names_it(kind: str, body: dict[str, object], says: str) -> None:
    with pytest.raises(StoreError, match=says):
        from_row(kind, body, seq=7)
