"""Sites join late, leave, come back, fall silent: nobody waits for them and nothing of theirs is lost."""

from __future__ import annotations

import contextlib
import os
import signal

import psutil
import pytest

from fedbus.local.federation import Daemon, wait_until
from tests.waits import SOON

PACED = {"step_delay_s": 0.05}  # a version takes a tenth of a second, so that there is time to come and go


@pytest.fixture
def freeze(house):
    """Stops a site daemon and its trainers, as a machine does that hangs; whatever still hangs at the end goes on."""
    frozen: list[psutil.Process] = []

    def stop(site: Daemon) -> list[psutil.Process]:
        frozen.extend([psutil.Process(site.pid), *house.trainers(site)])
        for process in frozen:
            process.suspend()
        return frozen

    yield stop
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()


def test_site_that_joins_late_starts_from_the_newest_snapshot(house):
    # given a job that has a snapshot of version 4
    house.start_aggregator()
    house.start_site("cleveland", **PACED)
    job = house.submit(stop={"versions": 1000}, snapshot_every=4)
    house.committed(5)
    # when a second site joins
    late = house.start_site("hungary", **PACED)
    # then the first version it holds is not older than that snapshot, and its updates count
    assert late.wait_for("version-held", job=job)["version"] >= 4
    assert house.aggregator.wait_for("update-folded", site="hungary")["base_version"] >= 4


def test_site_that_leaves_and_comes_back_goes_on_where_the_others_are(house):
    # given a job with two sites
    house.start_aggregator()
    house.start_site("cleveland", **PACED)
    hungary = house.start_site("hungary", **PACED)
    job = house.submit(stop={"versions": 1000})
    house.aggregator.wait_for("update-folded", site="hungary")
    # when one leaves
    hungary.stop()
    house.aggregator.wait_for("site-left", site="hungary", job=job)
    left_at = house.job(job)["version"]
    # then the other one trains on alone
    house.committed(left_at + 3)
    # and when the first is back, its updates are from where the other one is
    house.start_site("hungary", **PACED)
    wait_until(
        lambda: [f for f in house.folded(job) if f.update_id.site == "hungary" and f.base_version > left_at],
        within=SOON,
        what="an update of the site that came back",
    )


def test_site_that_comes_back_to_where_it_was_reads_no_snapshot(house):
    # given a job whose only site is killed; its model is so large that versions go without a snapshot
    house.start_aggregator()
    site = house.start_site("cleveland", **PACED)
    job = house.submit(stop={"versions": 1000}, task_config={"numel": 20_000}, snapshot_every=1000)
    site.wait_for("version-held", job=job, version=3)
    house.kill(site)
    # when it comes back
    back = house.start_site("cleveland", **PACED)
    # then it goes on from what it holds
    resumed = back.wait_for("model-resumed", job=job)
    assert 3 <= resumed["version"] <= resumed["newest"]
    house.aggregator.wait_for("update-folded", base_version=resumed["newest"])


def test_silent_site_is_lost_nobody_waits_for_it_and_it_is_back_when_it_speaks(house, freeze):
    # given a synchronous job, which waits for every site that is online, for a minute if need be
    house.start_aggregator()
    house.start_site("cleveland", status_interval_s=0.5, **PACED)
    hungary = house.start_site("hungary", status_interval_s=0.5, **PACED)
    job = house.submit(strategy={"kind": "sync", "deadline_s": 60}, stop={"versions": 1000})
    house.aggregator.wait_for("update-folded", site="hungary")
    # when one site falls silent without a word
    frozen = freeze(hungary)
    at = house.job(job)["version"]
    # then it is lost after its lease of 1.5 s, as the list of sites says, and versions go on without it
    house.aggregator.wait_for("site-lost", site="hungary")
    row = {site["site"]: site for site in house.fedbus("sites", "-o", "json").json}["hungary"]
    assert row["state"] == "lost"
    assert row["reason"].startswith("nothing heard for ")
    assert row["since_s"] < row["heard_s"]
    house.committed(at + 5)
    # and when it speaks again it takes part again, without a new start
    for process in frozen:
        process.resume()
    assert house.aggregator.wait_for("site-returned")["text"].startswith("hungary is back after ")
    wait_until(
        lambda: [f for f in house.folded(job) if f.update_id.site == "hungary" and f.base_version > at + 1],
        within=SOON,
        what="an update of the site that is back",
    )


def test_site_that_slept_through_the_end_of_its_job_lives_on_and_drops_its_files(house, freeze):
    # given a site that was frozen in its training, with its trainer still at work
    house.start_aggregator()
    house.start_site("cleveland", status_interval_s=0.5, **PACED)
    hungary = house.start_site("hungary", status_interval_s=0.5, step_delay_s=0.2)
    job = house.submit(min_sites=2, stop={"wall_time_s": 3})
    hungary.wait_for("version-held", job=job)
    os.kill(hungary.pid, signal.SIGSTOP)
    # when the job has ended and its queues are gone
    house.ended(job)
    # then the site, awake again, learns of the end, and drops the files of the job
    os.kill(hungary.pid, signal.SIGCONT)
    hungary.wait_for("job-ended", job=job)
    files = house.folder / "sites" / "hungary" / "jobs" / job
    wait_until(lambda: not files.exists(), within=SOON, what="the end of the job's files")
    assert hungary.alive


def test_job_without_any_site_left_says_who_is_offline_and_since_when(house):
    # given a job with one site
    house.start_aggregator()
    site = house.start_site("cleveland", status_interval_s=0.5, **PACED)
    job = house.submit(stop={"versions": 1000})
    house.committed(1)
    (trainer,) = house.trainers(site)
    # when that site is killed
    house.kill(site)
    # then it leaves no trainer behind
    house.wait_gone(trainer)
    house.aggregator.wait_for("site-lost", site="cleveland")
    # and the list of jobs says why nothing happens
    (row,) = house.fedbus("jobs", "-o", "json").json
    assert row["job"] == job
    assert row["state"] == "running"
    assert "cleveland offline " in row["says"]
