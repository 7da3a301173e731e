"""The aggregator's disk runs full in the middle of a job: nothing is lost, and it goes on by itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from fedbus.bench.local import wait_until

SOON = timedelta(seconds=60)


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
