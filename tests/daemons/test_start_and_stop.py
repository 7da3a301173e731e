"""What is there while a daemon runs, and what is left when it has ended."""

from __future__ import annotations

import psutil
import pytest

from fedbus.local.federation import Daemon


@pytest.fixture
def training(house) -> tuple[Daemon, psutil.Process]:
    """A site in the middle of a training, and its trainer."""
    house.start_aggregator()
    site = house.start_site("cleveland", step_delay_s=0.05)
    house.submit(stop={"versions": 1000})
    house.committed(1)
    (trainer,) = house.trainers(site)
    return site, trainer


def test_site_that_is_told_to_stop_takes_leave_and_leaves_no_trainer_behind(house, training):
    site, trainer = training
    # when it gets SIGTERM
    code = house.terminate(site)
    # then it ends as asked, says so to the aggregator, and its trainer is gone
    assert code == 0
    house.wait_gone(trainer)
    house.aggregator.wait_for("site-left", site="cleveland")
    assert house.site("cleveland")["state"] == "left"
