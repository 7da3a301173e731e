"""Time-boxed local work through all daemons: a slow site makes fewer steps, so that it returns with the others."""

from __future__ import annotations

STEPS = 10


def test_a_slow_site_makes_fewer_steps_once_its_speed_is_known(house):
    # given two sites, one of which takes ten times as long for a step
    house.start_aggregator()
    house.start_site("cleveland", step_delay_s=0.02)
    slow = house.start_site("hungary", step_delay_s=0.2)
    # when a time-boxed job runs
    local = {"steps": STEPS, "time_boxed": True, "batch_size": 32, "learning_rate": 0.05, "evaluate": False}
    job = house.submit(min_sites=2, local=local, stop={"updates": 40})
    told = slow.wait_for("step-budget", job=job)
    house.ended(job)
    # then the slow one makes as many steps as it was told, and the fast one all of them
    steps: dict[str, list[int]] = {"cleveland": [], "hungary": []}
    for fact in house.folded(job):
        steps[fact.update_id.site].append(fact.effort.steps)
    assert set(steps["cleveland"]) == {STEPS}
    assert steps["hungary"][0] == STEPS
    assert told["steps"] <= STEPS // 2
    assert max(steps["hungary"][2:]) <= STEPS // 2
    # and it returns far more often than one time in eleven
    assert len(steps["hungary"]) >= 6
