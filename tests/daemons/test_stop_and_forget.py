"""`fedbus site stop --now` and `fedbus site forget` at a real federation."""

from __future__ import annotations

import os
from typing import Any

from tests.other_processes import ended

from .conftest import QUICK_STATUS, House
from .test_policy import tap


def test_a_site_that_is_stopped_says_no_word_stays_out_and_forgets_all_but_its_audit_log(house: House) -> None:
    # given a site that trains
    house.start_aggregator()
    house.aggregator.wait_for("aggregator-ready")
    site = house.start_site("cleveland", step_delay_s=0.05, **QUICK_STATUS)
    site.wait_for("site-ready")
    job = house.submit(stop={"versions": 100000}, local=LOCAL)
    house.committed(2)
    (trainer,) = house.trainers(site)
    state = house.running.state_dir("cleveland")
    with tap(house.running.url("aggregator"), "cleveland") as said:
        # when somebody pulls the plug
        stopped = house.fedbus("site", "stop", "--now", "--state-dir", str(state))
        assert stopped.code == 0, stopped.err
        # then nobody is left, and it has said no goodbye
        assert ended(trainer)
        assert house.exit_code(site) == 2
        before = [kind for kind, _ in said()]
        assert "leave" not in before
        assert [kind for kind, _ in said()] == []
    # and it does not start again, though its job goes on
    again = house.start_site("cleveland", **QUICK_STATUS)
    assert house.exit_code(again) == 2
    assert "was stopped on" in again.last_words()
    # and forgets what it knows: first it says what that is
    listed = house.fedbus("site", "forget", "--state-dir", str(state))
    assert "nothing was deleted" in listed.out
    assert (state / "jobs" / job).is_dir()
    gone = house.fedbus("site", "forget", "--yes", "--state-dir", str(state))
    assert gone.code == 0, gone.err
    assert str(state / "jobs") in gone.out
    assert {path.name for path in state.iterdir()} <= {"audit", "lock", "stopped", "policy-day.json"}
    # until somebody lets it
    assert house.fedbus("site", "resume", "--state-dir", str(state)).code == 0
    site = house.start_site("cleveland", **QUICK_STATUS)
    site.wait_for("site-ready")
    # and one that runs is stopped before it forgets
    gone = house.fedbus("site", "forget", "--yes", "--state-dir", str(state))
    assert gone.code == 0, gone.err
    assert "are gone; it stays out" in gone.out
    assert house.exit_code(site) == 2
    assert {path.name for path in state.iterdir()} <= {"audit", "lock", "stopped", "policy-day.json"}
    assert os.listdir(state / "audit")


LOCAL: dict[str, Any] = {"steps": 5, "batch_size": 32, "learning_rate": 0.05, "evaluate": False}
