"""A disk runs full in the middle of a job: nothing is lost, and it goes on by itself when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedbus.local.federation import wait_until
from tests.waits import SOON


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)], check=False)
    if made.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until nothing fits any more."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


def test_full_disk_pauses_the_job_and_room_lets_it_go_on(house, small_disk):
    # given a job whose aggregator writes to a small disk
    aggregator = house.start_aggregator(state_dir=small_disk / "aggregator", checkpoint_interval_s=0.2)
    house.start_site("cleveland", step_delay_s=0.02)
    config = {"numel": 1 << 18}
    job = house.submit(task_config=config, stop={"versions": 100_000}, codec={"up": "fp32", "down": "fp32"})
    house.committed(3)
    # when the disk runs full
    ballast = small_disk / "ballast"
    fill(ballast)
    # then it stands still, alive, and says why
    aggregator.wait_for("disk-full", within=SOON)
    said = wait_until(
        lambda: (row := house.job(job))["says"].startswith("paused") and row, within=SOON, what="the pause"
    )
    assert "the disk is full" in said["says"]
    # and when there is room again, it goes on where it was
    ballast.unlink()
    aggregator.wait_for("disk-has-room", within=SOON)
    wait_until(lambda: house.job(job)["version"] > said["version"] + 2, within=SOON, what="versions after the pause")
    assert any("disk was full" in incident["text"] for incident in house.job(job)["incidents"])
    house.ask(lambda client: client.abort(job, None))
    aggregator.wait_for("job-ended", job=job)


def test_full_disk_of_a_site_pauses_that_site_only_until_there_is_room(house, small_disk):
    # given a job of two sites, one of them with a small disk
    aggregator = house.start_aggregator()
    small = house.start_site("cleveland", site_state_dir=small_disk / "site", step_delay_s=0.02, status_interval_s=0.5)
    house.start_site("hungary", step_delay_s=0.02)
    codec = {"up": "fp32", "down": "fp32"}
    config = {"numel": 1 << 18}
    job = house.submit(task_config=config, stop={"versions": 100_000}, codec=codec, strategy={"kind": "fedasync"})
    aggregator.wait_for("update-folded", site="cleveland")
    # when that disk runs full
    ballast = small_disk / "ballast"
    fill(ballast)
    small.wait_for("disk-full", within=SOON)
    # then the site lives, and the job goes on without it
    version = house.job(job)["version"]
    wait_until(lambda: house.job(job)["version"] > version + 2, within=SOON, what="versions without the site")
    assert small.alive
    # and when there is room, the site goes on
    ballast.unlink()
    updates = house.job(job)["sites"]["cleveland"]["updates"]
    wait_until(
        lambda: house.job(job)["sites"]["cleveland"]["updates"] > updates + 1, within=SOON, what="the site's updates"
    )
    house.ask(lambda client: client.abort(job, None))
    aggregator.wait_for("job-ended", job=job)
    # and drops the job's files, before its disk is taken away
    files = small_disk / "site" / "jobs" / job
    wait_until(lambda: not files.exists(), within=SOON, what="the end of the job's files")
