"""The hash of a job's history: whoever has the ledger computes the same, and whatever changes in it changes that."""

from __future__ import annotations

from pathlib import Path

from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Refused
from fedbus.store.ledger import Ledger
from fedbus.store.provenance import Provenance
from fedbus.store.rows import JobRow


def ledger_with(folder: Path, *reasons: str) -> tuple[Ledger, JobRow]:
    ledger = Ledger(folder / f"{len(list(folder.iterdir()))}.sqlite3")
    ledger.add_job("old", {"name": "old", "task": "t"}, message_id="m", submitted_by="ana", state="finished", at=1.0)
    for number, reason in enumerate(reasons):
        fact = Refused(update_id=UpdateId(site="mercy", incarnation="0123abcd", sequence=number), reason=reason)
        ledger.record_facts("old", [fact], at=2.0)
    row = ledger.job("old")
    assert row is not None
    return ledger, row


def test_it_is_the_same_when_it_was_asked_on_the_way(tmp_path: Path) -> None:
    ledger, row = ledger_with(tmp_path, "a")
    asked_often = Provenance(ledger)
    first = asked_often.of(row)
    fact = Refused(update_id=UpdateId(site="mercy", incarnation="0123abcd", sequence=1), reason="b")
    ledger.record_facts("old", [fact], at=2.0)
    assert asked_often.of(row) == Provenance(ledger).of(row)
    assert (first.facts, asked_often.of(row).facts) == (1, 2)


def test_a_fact_that_differs_is_missing_or_changes_place_gives_another_hash(tmp_path: Path) -> None:
    found = [
        Provenance(ledger).of(row).sha256
        for ledger, row in (ledger_with(tmp_path, *reasons) for reasons in (("a", "b"), ("a", "c"), ("a",), ("b", "a")))
    ]
    assert len(set(found)) == 4
