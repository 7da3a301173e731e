"""When a job that stands still says why."""

from __future__ import annotations

import itertools

from fedbus.aggregator.desk.stalls import FIRST_S, LONGEST_S, Stalls


def test_a_job_that_moves_says_nothing() -> None:
    stalls = Stalls()
    assert not any(stalls.should_tell("heart", step, now=FIRST_S * step) for step in range(100))


def test_a_job_that_stands_still_says_why_ever_more_seldom() -> None:
    stalls = Stalls()
    told = [second for second in range(5000) if stalls.should_tell("heart", (3, 7), now=float(second))]
    assert told[:4] == [10, 30, 70, 150]
    assert max(later - earlier for earlier, later in itertools.pairwise(told)) == LONGEST_S


def test_a_job_that_moved_again_is_patient_anew() -> None:
    stalls = Stalls()
    for second in range(100):
        stalls.should_tell("heart", 1, now=float(second))
    assert not any(stalls.should_tell("heart", 2, now=float(second)) for second in range(100, 110))
    assert stalls.should_tell("heart", 2, now=110.0)


def test_jobs_do_not_share_their_patience() -> None:
    stalls = Stalls()
    stalls.should_tell("heart", 1, now=0.0)
    stalls.should_tell("brain", 1, now=5.0)
    assert stalls.should_tell("heart", 1, now=10.0)
    assert not stalls.should_tell("brain", 1, now=10.0)
