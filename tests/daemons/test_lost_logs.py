"""The disk of the log is full: nobody reads what the daemons say, and they do their work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedbus.local.federation import wait_until
from tests.waits import SOON


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_daemons_whose_logs_cannot_be_written_finish_their_job_and_stop_as_asked(house):
    # given an aggregator and a site whose log files take nothing
    for name in ("aggregator", "cleveland"):
        (house.folder / "logs" / f"{name}.log").symlink_to("/dev/full")
    daemons = [house.start_aggregator(), house.start_site("cleveland")]
    for daemon in daemons:
        daemon.log = Path(os.devnull)  # what a failed test would show; the other one never ends
    # when there is a job
    job = house.submit()
    # then it is finished, and both end as asked
    wait_until(lambda: house.job(job)["state"] == "finished", within=2 * SOON, what="the end of the job")
    assert [house.terminate(daemon) for daemon in daemons] == [0, 0]
