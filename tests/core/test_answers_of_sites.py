"""Questions that every site is asked once."""

from __future__ import annotations

from fedbus.core.job.answers import Answers


def test_what_nobody_asked_does_not_count() -> None:
    answers: Answers[int] = Answers()
    assert not answers.take(0, "mercy", 1)
    assert not answers.cannot(0, "mercy", "no data")
    assert (answers.of(0), answers.failures(0), answers.count) == ({}, {}, 0)


def test_the_newest_answer_counts_also_after_a_failure() -> None:
    answers: Answers[int] = Answers()
    answers.ask(0)
    answers.cannot(0, "mercy", "no data")
    assert answers.failures(0) == {"mercy": "no data"}
    answers.take(0, "mercy", 1)
    answers.take(0, "mercy", 2)
    assert (answers.of(0), answers.failures(0)) == ({"mercy": 2}, {})


def test_sites_owe_what_they_were_asked_and_have_neither_answered_nor_tried() -> None:
    answers: Answers[int] = Answers()
    answers.ask(1)
    answers.ask(0)
    answers.take(0, "ucsf", 1)
    answers.cannot(1, "mercy", "no data")
    assert answers.missing({"mercy", "ucsf"}) == [(0, "mercy"), (1, "ucsf")]
    assert answers.missing(set()) == []
