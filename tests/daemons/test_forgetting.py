"""A job that is over can be deleted: its files, its rows, its queues; one that runs cannot."""

from __future__ import annotations

import sqlite3

import pytest

from fedbus.local.federation import wait_until
from fedbus.store.ledger_schema import TABLES_OF_A_JOB
from tests.waits import SOON


def rows_of(house, job):
    counting = "SELECT count(*) FROM {} WHERE job = ?"
    with sqlite3.connect(house.folder / "aggregator" / "ledger.sqlite3") as db:
        return {table: db.execute(counting.format(table), (job,)).fetchone()[0] for table in TABLES_OF_A_JOB}


def files_of(house, job):
    return [path for path in (house.folder / "aggregator").rglob("*") if job in path.parts]


def queues(vhost):
    return set(vhost.node.ctl("list_queues", "-p", vhost.vhost, "name").split())


@pytest.fixture
def ended(house, vhost):
    """A job that has finished and was closed."""
    house.start_aggregator(keep_updates=True)
    house.start_site("cleveland")
    before = queues(vhost)
    job = house.submit()
    house.ended(job)
    wait_until(lambda: queues(vhost) == before, within=SOON, what="its queue and its model log are deleted")
    return job


def test_a_job_that_is_over_is_forgotten_with_all_it_had(house, ended):
    assert files_of(house, ended)
    said = house.fedbus("rm", ended)
    assert said.code == 0, said.err
    assert said.out.startswith(f"{ended} is forgotten: ")
    assert files_of(house, ended) == []
    assert set(rows_of(house, ended).values()) == {0}
    assert ended not in house.fedbus("jobs").out
    # and again there is nothing to forget
    said = house.fedbus("rm", ended)
    assert said.code == 1
    assert f"no job '{ended}'" in said.err


def test_prune_lists_first_and_deletes_when_told(house, ended):
    for arguments, says in (
        (["--older-than", "1h"], "no job ended so long ago"),
        (["--older-than", "0m", "--state", "aborted"], "no job ended so long ago"),
        (["--older-than", "0m"], "nothing was deleted; add --yes to do it"),
    ):
        said = house.fedbus("prune", *arguments)
        assert (said.code, says in said.out) == (0, True), said
    assert files_of(house, ended)
    said = house.fedbus("prune", "--older-than", "0m", "--yes")
    assert "1 job forgotten" in said.out
    assert files_of(house, ended) == []


def test_a_job_that_runs_is_not_forgotten_and_goes_on(house):
    house.start_aggregator()
    house.start_site("cleveland", step_delay_s=0.05)
    job = house.submit(stop={"versions": 100_000})
    house.committed(1)
    said = house.fedbus("rm", job)
    assert said.code == 1
    assert "is being closed" in said.err or "only a job that has ended can be forgotten" in said.err
    assert house.fedbus("prune", "--older-than", "0m", "--yes").out.strip() == "no job ended so long ago"
    house.committed(house.job(job)["version"] + 2)


def test_the_settings_of_the_aggregator_hold_a_limit(house, ended):
    house.terminate(house.aggregator)
    house.start_aggregator(keep_bytes=0)
    house.aggregator.wait_for("job-forgotten", job=ended)
    assert files_of(house, ended) == []


def test_jobs_are_listed_by_state_and_those_that_wait_aborted_at_once(house):
    house.start_aggregator()
    waiting = [house.submit(min_sites=9) for _ in range(3)]
    said = house.fedbus("jobs", "--state", "waiting", "--last", "2", "-o", "json")
    assert said.code == 0, said.err
    listed = said.json
    assert [row["job"] for row in listed] == waiting[1:]
    assert house.fedbus("jobs", "--state", "runing").code == 2
    said = house.fedbus("abort", "--all-waiting")
    assert said.code == 0, said.err
    assert [line.split()[0] for line in said.out.splitlines()] == waiting
    for job in waiting:
        house.ended(job, state="aborted")
    assert house.fedbus("abort", "--all-waiting").out == "no job waits\n"
