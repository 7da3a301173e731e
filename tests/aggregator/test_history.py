"""Facts as rows of the ledger and back, and the receipts that each version carries."""

from __future__ import annotations

import dataclasses
import json

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import Outcome, Receipt, UpdateId
from fedbus.core.rules.facts import (
    Combination,
    Committed,
    Fact,
    Folded,
    Refused,
    Term,
)
from fedbus.errors import StoreError
from fedbus.store import history, ledger


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
        dataclasses.replace(folded(1), effort=Effort(num_examples=300, steps=7, metrics={"loss": 0.5}), also=TERMS),
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
    found, body = history.to_row(fact)
    assert found == kind
    row = ledger.Fact(seq=1, kind=kind, body=json.loads(json.dumps(body)), at=0.0)
    assert history.from_row(row) == fact


def test_rows_of_releases_that_knew_no_memory_read_as_they_were() -> None:
    numbers = {"base_version": 3, "num_examples": 9, "staleness": 0, "weight": 3.0, "clip": 1.0, "norm": 2.0, "at": 1.5}
    fold = ledger.Fact(seq=1, kind="folded", body={"update_id": "mercy:0123abcd:1"} | numbers, at=0.0)
    body = {"version": 4, "update_ids": ["mercy:0123abcd:1"], "normaliser": 3.0, "reason": "full", "at": 2.0}
    commit = ledger.Fact(seq=2, kind="committed", body=body, at=0.0)

    folded, committed = history.from_row(fold), history.from_row(commit)

    effort = Effort(num_examples=9)
    assert folded == Folded(update_id=update(1), effort=effort, **numbers)
    assert committed == Committed(version=4, update_ids=(update(1),), normaliser=3.0, reason="full", at=2.0)
    # and are written again as they were, but for what they say of their making, which is in one piece now
    assert history.to_row(folded) == ("folded", fold.body | {"effort": {"num_examples": 9}})
    assert history.to_row(committed) == ("committed", commit.body)


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
        history.from_row(ledger.Fact(seq=7, kind=kind, body=body, at=0.0))


def test_a_receipt_says_what_became_of_an_update() -> None:
    assert history.receipt("heart", folded(1, staleness=2)) == Receipt(
        job="heart", update_id="mercy:0123abcd:1", outcome=Outcome.FOLDED, staleness=2
    )
    assert history.receipt("heart", dataclasses.replace(folded(1, staleness=300), rebase=240)).rebase == 240
    assert history.receipt("heart", Refused(update_id=update(2), reason="too stale")) == Receipt(
        job="heart", update_id="mercy:0123abcd:2", outcome=Outcome.REFUSED, reason="too stale"
    )


def test_each_version_carries_the_receipts_of_all_that_was_decided_since_the_one_before() -> None:
    facts: list[Fact] = [
        folded(1),
        Refused(update_id=update(2), reason="no"),
        folded(1, "ucsf"),
        committed(1, update(1), update(1, "ucsf")),
        folded(3),
        committed(2, update(3)),
        Refused(update_id=update(4), reason="no"),
    ]
    found = history.receipts_by_version("heart", facts)
    assert {version: [r.update_id for r in receipts] for version, receipts in found.items()} == {
        1: ["mercy:0123abcd:1", "mercy:0123abcd:2", "ucsf:0123abcd:1"],
        2: ["mercy:0123abcd:3"],
        3: ["mercy:0123abcd:4"],
    }


def test_without_facts_there_are_no_receipts() -> None:
    assert history.receipts_by_version("heart", []) == {}
