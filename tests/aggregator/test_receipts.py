"""Receipts: what a site is told of an update, and which of them each version carries."""

from __future__ import annotations

import dataclasses

from fedbus.aggregator.job import receipts
from fedbus.core.protocol.messages import Outcome, Receipt, UpdateId
from fedbus.core.rules.facts import Committed, Fact, Folded, Refused


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


def test_a_receipt_says_what_became_of_an_update() -> None:
    assert receipts.receipt_of("heart", folded(1, staleness=2)) == Receipt(
        job="heart", update_id="mercy:0123abcd:1", outcome=Outcome.FOLDED, staleness=2
    )
    assert receipts.receipt_of("heart", dataclasses.replace(folded(1, staleness=300), rebase=240)).rebase == 240
    assert receipts.receipt_of("heart", Refused(update_id=update(2), reason="too stale")) == Receipt(
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
    found = receipts.by_version("heart", facts)
    assert {version: [r.update_id for r in told] for version, told in found.items()} == {
        1: ["mercy:0123abcd:1", "mercy:0123abcd:2", "ucsf:0123abcd:1"],
        2: ["mercy:0123abcd:3"],
        3: ["mercy:0123abcd:4"],
    }


def test_without_facts_there_are_no_receipts() -> None:
    assert receipts.by_version("heart", []) == {}
