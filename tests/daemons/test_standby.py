"""A second aggregator on the same state folder: it waits, and takes over when the first one is gone."""

from __future__ import annotations

from fedbus.core.rules.facts import Committed


def test_standing_by_takes_over_when_the_first_is_killed_and_the_job_goes_on(manned_house):
    # given a job that goes on until it is aborted, and a second aggregator on the same folder
    house = manned_house
    first = house.aggregator
    house.start_site("cleveland", step_delay_s=0.02, status_interval_s=0.5)
    job = house.submit(task="heart_disease", task_config={}, min_sites=1, stop={"versions": 10**6})
    first.wait_for("version-committed", version=3)
    second = house.start_aggregator()
    text = second.wait_for("standing-by")["text"]
    assert f"in use by process {first.pid}" in text
    # when the first is killed
    house.kill(first)
    # then the second works, from where the first was
    second.wait_for("taking-over")
    committed = second.wait_for("version-committed")
    house.ask(lambda client: client.abort(job, "seen enough"))
    house.ended(job, state="aborted")
    # the ledger knows: a kill between a version's fact and its log line leaves no line
    versions = [fact.version for fact in house.facts(job) if isinstance(fact, Committed)]
    assert versions == list(range(1, len(versions) + 1))
    assert versions[-1] >= committed["version"] > 3


def test_standing_by_ends_on_a_signal(manned_house):
    # given an aggregator that stands by
    house = manned_house
    first = house.aggregator
    second = house.start_aggregator()
    second.wait_for("standing-by")
    # when it is asked to end, then it does, and the first goes on
    second.stop()
    assert not second.alive
    assert first.alive
