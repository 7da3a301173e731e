"""A memory or disk alarm of the broker: everything waits, people are told why, nothing is lost.

The alarm holds for a whole node, so this one is not shared with other tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedbus.local.federation import LocalFederation, wait_until


@pytest.fixture
def house(tmp_path: Path, make_house: Any) -> Iterator[Any]:
    """A federation with a private broker of its own."""
    with LocalFederation(tmp_path / "fed", sites=("cleveland",)) as running:
        yield make_house(running)


def test_job_goes_on_after_a_memory_alarm_and_says_what_it_cost(house):
    # given a job that is trained
    node = house.running.node
    aggregator = house.start_aggregator()
    site = house.start_site("cleveland", step_delay_s=0.05)
    job = house.submit(stop={"versions": 100_000})
    house.committed(3)
    # when the broker raises a memory alarm
    node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    aggregator.wait_for("broker blocked")
    site.wait_for("broker blocked")
    # then commands say so
    asked = house.fedbus("jobs", timeout_s=2)
    assert (asked.code, "memory or disk alarm" in asked.err) == (1, True)
    assert node.alarms()[0].startswith("memory alarm")
    # and when it is over, the job goes on and tells of it
    node.ctl("set_vm_memory_high_watermark", "0.4")
    aggregator.wait_for("broker-unblocked", job=job)
    before = house.job(job)["version"]
    wait_until(lambda: house.job(job)["version"] > before, within=timedelta(seconds=30), what="a version after it")
    shown = [incident["kind"] for incident in house.job(job)["incidents"]]
    assert "broker-unblocked" in shown
    assert len(house.folded(job)) == len({fact.update_id for fact in house.folded(job)})
