"""A person ends a job."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fedbus.local.federation import wait_until
from tests.waits import SOON


@pytest.fixture(scope="module")
def aborted(manned_house):
    """A job that a person aborted in the middle, by the command line."""
    house = manned_house
    house.start_site("cleveland", step_delay_s=0.05)
    job = house.submit(stop={"versions": 1000})
    house.committed(1)
    said = house.fedbus("abort", job, "--reason", "wrong data")
    assert (said.code, said.out) == (0, f"{job} is being aborted\n")
    house.ended(job, state="aborted")
    return job


def test_aborted_job_stops_the_training_and_its_files_go(manned_house, aborted):
    # then the site stops its trainer and drops what it held of the job
    (site,) = [daemon for daemon in manned_house.running.daemons if daemon.name == "cleveland"]
    site.wait_for("job-ended", job=aborted, state="aborted")
    wait_until(lambda: not manned_house.trainers(site), within=SOON, what="the end of the trainer")
    files = manned_house.folder / "sites" / "cleveland" / "jobs" / aborted
    wait_until(lambda: not files.exists(), within=SOON, what="the end of the job's files")
    # and the job says who ended it and why
    assert manned_house.job(aborted)["says"] == "aborted by submitter: wrong data"


def test_aborted_job_leaves_its_newest_version_and_fedbus_show_names_it(manned_house, aborted):
    detail = manned_house.job(aborted)
    assert detail["version"] >= 1
    assert Path(detail["result"]["exported"]).is_file()
    assert detail["sites"]["cleveland"]["updates"] >= 1
    shown = manned_house.fedbus("show", aborted)
    assert detail["result"]["exported"] in "".join(shown.out.split())


def test_site_that_was_away_at_the_end_drops_its_files_when_it_is_back(manned_house, aborted):
    # given a site that was killed during the job, with an update in its outbox, and that the aggregator forgot
    files = manned_house.folder / "sites" / "hungary" / "jobs" / aborted
    (files / "outbox").mkdir(parents=True)
    (files / "outbox" / "00000001.frames").write_bytes(b"delta")
    # when it is back
    manned_house.start_site("hungary", status_interval_s=0.2)
    # then it hears of the end and keeps nothing
    wait_until(lambda: not files.exists(), within=timedelta(seconds=30), what="the end of the job's files")


def test_watching_an_aborted_job_fails(manned_house, aborted):
    said = manned_house.fedbus("watch", aborted)
    assert said.code == 1
    assert "aborted by submitter: wrong data" in said.out.splitlines()[-1]
