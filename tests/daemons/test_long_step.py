"""A training step that never yields: the site is heard all the while."""

from __future__ import annotations

from datetime import timedelta

LEASE_S = 3.0
"""Three status intervals of a second."""
# Much longer than the lease. A step of 90 s, which also outlasts the broker's heartbeats, was run by hand.
BLOCKS_FOR_S = 8.0


def test_site_is_heard_while_its_trainer_is_in_a_step_that_blocks(house):
    # given a site whose trainer does not come back from its step for a while
    house.start_aggregator(score_timeout_s=0.5)
    site = house.start_site("cleveland", status_interval_s=LEASE_S / 3)
    job = house.submit(task_config={"numel": 64, "block_s": BLOCKS_FOR_S}, stop={"versions": 1})
    site.wait_for("version-held", job=job)
    # when it is asked about until the update is there
    seen = []
    while not any(event["event"] == "update-folded" for event in house.aggregator.events()):
        seen.append(house.site("cleveland"))
    house.aggregator.wait_for("job-ended", within=timedelta(seconds=30), job=job)
    # then it was online at every moment and said what it does
    assert {row["state"] for row in seen} == {"online"}
    assert max(row["heard_s"] for row in seen) < LEASE_S
    assert "training" in {row["jobs"][job]["activity"] for row in seen if job in row["jobs"]}
    # and nobody took it for lost
    assert not [event for event in house.aggregator.events() if event["event"] == "site-lost"]
    assert not [event for event in site.events() if event["event"] == "broker lost"]
