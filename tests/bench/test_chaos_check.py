"""The comparison after a chaos run finds what was planted, and nothing in a run where all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedbus.bench.chaos import check
from fedbus.bench.chaos.check import LedgerRecord, SiteRecord
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Committed, Folded, Refused


def update(sequence: int, site: str = "mercy") -> UpdateId:
    return UpdateId(site=site, incarnation="0123abcd", sequence=sequence)


def folded(sequence: int) -> Folded:
    return Folded(
        update_id=update(sequence), base_version=0, num_examples=1, staleness=0, weight=1.0, clip=1.0, norm=1.0, at=0.0
    )


def refused(sequence: int) -> Refused:
    return Refused(update_id=update(sequence), reason="staleness 9 is above the job's max_staleness 2")


def committed(version: int, *sequences: int) -> Committed:
    return Committed(version=version, update_ids=tuple(map(update, sequences)), normaliser=1.0, reason="full", at=0.0)


def name(sequence: int) -> str:
    return str(update(sequence))


# Initial params (0), two versions of two updates each, one refused in between.
LEDGER = LedgerRecord(
    state="finished",
    facts=(folded(1), folded(2), committed(1, 1, 2), folded(3), refused(4), folded(5), committed(2, 3, 5)),
    outcomes={name(n): "refused" if n == 4 else "folded" for n in range(6)},
    published=(0, 1, 2),
)
MERCY = SiteRecord(
    site="mercy",
    confirmed=tuple(map(name, (0, 1, 2, 2, 3, 4, 5))),
    receipts=((name(0), "folded"), (name(4), "refused"), (name(4), "refused")),
    held=((0, 1), (1, 2)),
)


def breaches(site: SiteRecord, ledger: LedgerRecord) -> list[str]:
    return [
        *check.lost([site], ledger),
        *check.counted_wrongly(ledger),
        *check.gaps(ledger),
        *check.disagreements([site], ledger),
        *check.steps_back([site]),
    ]


def with_facts(*facts: Folded | Refused | Committed) -> LedgerRecord:
    return replace(LEDGER, facts=facts)


def test_nothing_is_found_where_all_is_well() -> None:
    assert breaches(MERCY, LEDGER) == []


def test_an_update_that_was_confirmed_and_never_decided_is_lost() -> None:
    site = replace(MERCY, confirmed=(*MERCY.confirmed, name(6)))
    assert breaches(site, LEDGER) == [f"{name(6)} was confirmed to mercy and neither folded nor refused"]


def test_an_update_that_was_decided_and_not_confirmed_is_no_fault() -> None:
    # its site was killed before it could write the confirm down
    assert breaches(replace(MERCY, confirmed=()), LEDGER) == []


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ((folded(1), folded(1), committed(1, 1, 1)), f"{name(1)} was folded 2 times"),
        ((refused(4), refused(4)), f"{name(4)} was refused 2 times"),
        ((folded(4), refused(4), committed(1, 4)), f"{name(4)} was folded and refused"),
        ((folded(1), committed(1, 1), committed(2, 1)), f"{name(1)} is in 2 versions"),
        ((folded(1), folded(2), committed(1, 1)), f"version 1 is made of {name(1)}, folded were {name(1)}, {name(2)}"),
        ((committed(1, 1),), f"version 1 is made of {name(1)}, folded were none"),
        ((folded(1),), f"{name(1)} folded after the last version, and in none"),
    ],
)
def test_an_update_that_does_not_count_exactly_once_is_found(
    facts: tuple[Folded | Refused | Committed, ...], found: str
) -> None:
    assert found in check.counted_wrongly(with_facts(*facts))


def test_a_job_that_was_aborted_may_end_with_a_buffer() -> None:
    ledger = replace(with_facts(folded(1)), state="aborted")
    assert check.counted_wrongly(ledger) == []


@pytest.mark.parametrize(
    ("facts", "published", "found"),
    [
        ((committed(1), committed(3)), (0, 1, 3), "versions were made in the order 1, 3"),
        ((committed(1), committed(1)), (0, 1), "versions were made in the order 1, 1"),
        ((committed(1), committed(2)), (0, 2), "version 1 was made and never published"),
        ((), (), "version 0 was made and never published"),
    ],
)
def test_a_gap_in_the_versions_is_found(facts: tuple[Committed, ...], published: tuple[int, ...], found: str) -> None:
    assert check.gaps(replace(with_facts(*facts), published=published)) == [found]


def test_a_receipt_that_says_something_else_than_the_ledger_is_found() -> None:
    site = replace(MERCY, receipts=((name(4), "folded"), (name(9), "refused")))
    assert check.disagreements([site], LEDGER) == [
        f"mercy was told that {name(4)} was folded, the ledger says refused",
        f"mercy was told that {name(9)} was refused, the ledger says nothing",
    ]


def test_a_fact_without_the_receipt_that_belongs_to_it_is_found() -> None:
    ledger = replace(LEDGER, outcomes={n: o for n, o in LEDGER.outcomes.items() if n != name(3)})
    assert check.disagreements([], ledger) == [f"{name(3)} was folded, its receipt says nothing"]


@pytest.mark.parametrize(
    ("connected_at", "published_at", "hangs"),
    [(90.0, (99.0,), True), (90.0, (99.0, 110.0), False), (110.0, (105.0,), True), (120.0, (99.0,), False)],
)
def test_a_site_that_could_send_updates_again_and_did_not_hangs(
    connected_at: float, published_at: tuple[float, ...], hangs: bool
) -> None:
    # given that everybody was up from 100 s on, and training was over at 140 s
    site = replace(MERCY, connected_at=connected_at, published_at=published_at)
    assert bool(check.stuck([site], healed_at=100.0, over_at=140.0)) is hangs


def test_a_site_that_went_back_within_one_process_is_found() -> None:
    site = replace(MERCY, held=((0, 2, 1), (1, 2)))
    assert check.steps_back([site]) == ["mercy held version 1 after version 2"]
