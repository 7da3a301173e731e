"""What a site does next, row by row of the table."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.job.duties import Duty, Examine, MakeInitial, Score, Standing, Stop, Train, Wait, next_duty
from fedbus.core.protocol.activities import Activity


@pytest.mark.parametrize(
    ("standing", "duty"),
    [
        ({}, Train()),
        ({"held": 0}, Train()),
        ({"stopping": True, "initial_asked": True}, Stop()),
        ({"stopping": True, "statistics_asked": True}, Stop()),
        ({"held": None, "statistics_asked": True, "initial_asked": True, "score_asked": 1}, Examine()),
        ({"held": None, "only_checks": True}, Wait(Activity.WAITING_FOR_END)),
        ({"held": None, "initial_asked": True, "score_asked": 1}, MakeInitial()),
        ({"held": None}, Wait(Activity.WAITING_FOR_MODEL)),
        ({"held": None, "score_asked": 3}, Wait(Activity.WAITING_FOR_MODEL)),
        ({"score_asked": 3, "unsettled": 1}, Score()),
        ({"score_asked": 4}, Wait(Activity.WAITING_FOR_VERSION, 4)),
        ({"score_asked": 2, "training_is_over": True}, Score()),
        ({"training_is_over": True}, Wait(Activity.WAITING_FOR_END)),
        ({"oldest_base": 4}, Wait(Activity.WAITING_FOR_VERSION, 4)),
        ({"oldest_base": 3}, Train()),
        ({"unsettled": 1}, Wait(Activity.WAITING_FOR_RECEIPT)),
        ({"unsettled": 1, "most_unsettled": 2}, Train()),
        ({"trained_from": 3}, Train()),
        ({"trained_from": 3, "waits_for_new": True}, Wait(Activity.WAITING_FOR_NEXT)),
        ({"trained_from": 2, "waits_for_new": True}, Train()),
        ({"trained_from": 3, "waits_for_new": True, "unsettled": 1}, Wait(Activity.WAITING_FOR_RECEIPT)),
    ],
    ids=str,
)
def test_the_next_duty(standing: dict[str, Any], duty: Duty) -> None:
    assert next_duty(Standing(**{"held": 3} | standing)) == duty
