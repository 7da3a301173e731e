"""Patience survives the aggregator: what was scored before a kill counts after it."""

from __future__ import annotations

import re
from typing import Any

from fedbus.local.federation import Daemon, wait_until
from tests.waits import SOON

PATIENCE = 30


def newest_scored(aggregator: Daemon) -> int:
    return max((event["version"] for event in aggregator.events() if event["event"] == "version-scored"), default=-1)


def test_a_kill_in_the_middle_of_a_patience_does_not_begin_it_anew(house: Any) -> None:
    # given a job whose metric never improves after its first versions, in the middle of its patience
    house.start_aggregator()
    house.start_site("cleveland")
    job = house.submit(
        task="heart_disease",
        task_config={},
        local={"steps": 1, "batch_size": 8, "learning_rate": 1e-12},
        stop={"patience": {"metric": "auc", "better": "higher", "versions": PATIENCE}},
    )
    wait_until(lambda: newest_scored(house.aggregator) >= PATIENCE // 2, within=SOON, what="half of the patience")
    # when the aggregator is killed and another one goes on
    house.kill(house.aggregator)
    house.start_aggregator()
    ended = house.ended(job)
    # then the job has ended when nothing had improved for so many versions, those before the kill among them
    best = int(re.search(r"of version (\d+) for", ended["text"])[1])
    assert best < PATIENCE // 2, ended["text"]
    assert best + PATIENCE <= ended["result"]["version"]
