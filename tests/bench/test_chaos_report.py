"""What a chaos run says at its end."""

from __future__ import annotations

from fedbus.bench.chaos.acts import Done
from fedbus.bench.chaos.check import LedgerRecord, SiteRecord
from fedbus.bench.chaos.plan import Act, Deed
from fedbus.bench.chaos.report import Found, Outcome, judge
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.facts import Fact, Refused


def refused(sequence: int, reason: str) -> Refused:
    return Refused(update_id=UpdateId(site="mercy", incarnation="0123abcd", sequence=sequence), reason=reason)


def found(*facts: Fact, confirmed: tuple[str, ...] = ()) -> Found:
    outcomes = {str(fact.update_id): "refused" for fact in facts if isinstance(fact, Refused)}
    ledger = LedgerRecord(state="finished", facts=facts, outcomes=outcomes, published=(0,))
    return judge([SiteRecord(site="mercy", confirmed=confirmed)], ledger, sent={"a": 1, "b": 3}, others={"broken": []})


def outcome(found: Found) -> Outcome:
    deeds = (Deed(at_s=0.0, act=Act.CUT, victim="mercy"), Deed(at_s=2.0, act=Act.KILL_SITE, victim="mercy", for_s=1.5))
    done = tuple(Done(deed=deed, at=100.0 + deed.at_s) for deed in deeds)
    return Outcome(seed=3, done=done, found=found, commits_at=(99.0, 100.5, 106.0, 107.0))


def test_a_run_without_fault_meets_every_goal() -> None:
    rows = outcome(found()).rows()
    assert all(row["met"] in (True, None) for row in rows)
    assert {"seed 3: updates lost", "seed 3: broken"} <= {row["case"] for row in rows}


def test_a_fault_misses_its_goal_and_is_said_in_words() -> None:
    bad = outcome(found(confirmed=("mercy:0123abcd:9",)))
    assert [row["case"] for row in bad.rows() if row["met"] is False] == ["seed 3: updates lost"]
    (sentence,) = bad.found.sentences
    assert sentence == "updates lost: mercy:0123abcd:9 was confirmed to mercy and neither folded nor refused"
    assert (bad.as_json()["ok"], bad.as_json()["failures"]) == (False, [sentence])


def test_recovery_is_the_longest_time_from_an_act_to_the_next_version() -> None:
    assert outcome(found()).worst_wait == (4.0, "site killed")


def test_reasons_are_counted_without_their_numbers() -> None:
    reasons = ("staleness 21 is too much", "staleness 30 is too much", "the job is finishing")
    counted = found(*(refused(n, reason) for n, reason in enumerate(reasons))).refused
    assert counted == {"staleness N is too much": 2, "the job is finishing": 1}


def test_the_sentence_says_what_was_done_and_what_came_of_it() -> None:
    said = outcome(found(refused(1, "the job is finishing"))).sentence()
    assert said.startswith("seed 3: 2 acts (1 x site killed, 1 x connections cut). 0 versions from 0 updates;")
    assert "refused: 1 because the job is finishing" in said
    assert "sent more than once by their site: 1" in said
    assert said.endswith("lost 0, double 0; the job is finished.")


def test_the_schedule_is_part_of_the_json() -> None:
    (_, killed) = outcome(found()).as_json()["schedule"]
    assert killed == {
        "at_s": 2.0,
        "act": "site killed",
        "victim": "mercy",
        "for_s": 1.5,
        "done_at": 102.0,
        "note": "",
    }
