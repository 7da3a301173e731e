"""SIGKILL to a trainer, a site, an aggregator: the job goes on, and every update counts once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pika
import pytest

from fedbus.bus.connection import Session
from fedbus.bus.post import Post
from fedbus.bus.stream import StreamReader
from fedbus.bus.topology import updates_queue
from fedbus.core.protocol.messages import VersionManifest
from fedbus.errors import NoSuchQueueError
from fedbus.local.federation import wait_until
from fedbus.store.ledger import Ledger
from tests.acts import lasting
from tests.waits import SOON

PACED = {"step_delay_s": 0.05}  # a version takes a tenth of a second, so that there is time to kill


@pytest.fixture
def model_log(house):
    """Reads version and digest of every manifest in a job's model log, up to a version."""

    async def read(job: str, version: int) -> list[tuple[int, str]]:
        found = []
        async with Session(house.running.url("aggregator"), name="test") as session:
            try:
                async for record in StreamReader(session, house.model_log(job)).follow("first"):
                    message = Post().from_envelope(record.envelope)
                    if isinstance(message, VersionManifest):
                        found.append((message.version, message.digest))
                        if message.version >= version:
                            break
            except NoSuchQueueError:
                pass  # the job has ended
        return found

    return lambda job, version: asyncio.run(asyncio.wait_for(read(job, version), SOON.total_seconds()))


def purge(url: str, queue: str) -> None:
    """Make the broker forget what waits in a queue."""
    connection = pika.BlockingConnection(lasting(url))
    connection.channel().queue_purge(queue)
    connection.close()


def test_killed_trainer_is_reported_and_replaced(house):
    # given a site that trains
    house.start_aggregator()
    site = house.start_site("cleveland", **PACED)
    job = house.submit(stop={"versions": 1000})
    house.committed(1)
    # when its trainer is killed, as the kernel does when memory runs out
    (trainer,) = house.trainers(site)
    trainer.kill()
    # then that is told to everybody
    trouble = house.aggregator.wait_for("trainer-trouble", site="cleveland", job=job)
    assert f"the trainer process {trainer.pid} was killed by SIGKILL" in trouble["text"]
    # and a new trainer goes on
    version = house.job(job)["version"]
    wait_until(lambda: [t for t in house.trainers(site) if t.pid != trainer.pid], within=SOON, what="a new trainer")
    house.committed(version + 2)


def test_killed_aggregator_goes_on_where_it_was(house, model_log):
    # given a job with two sites
    house.start_aggregator(checkpoint_interval_s=0.3)
    for name in ("cleveland", "hungary"):
        house.start_site(name, **PACED)
    job = house.submit(min_sites=2, stop={"versions": 14})
    house.committed(5)
    # when the aggregator is killed and started again
    house.kill(house.aggregator)
    reached = max(fact.version for fact in house.versions(job))
    house.start_aggregator(checkpoint_interval_s=0.3)
    log = model_log(job, 14)
    house.ended(job)
    # then it went on at the version it had reached
    assert house.aggregator.wait_for("job-continues")["text"].startswith(f"continues at version {reached} after ")
    # and every version was made once, and is the same wherever it was published again
    assert [fact.version for fact in house.versions(job)] == list(range(1, 15))
    assert {version for version, _ in log} >= set(range(15)) - {0}
    assert len({version for version, _ in log}) == len(set(log))
    # and every update that was folded is in exactly one version
    committed = Counter(str(update) for fact in house.versions(job) for update in fact.update_ids)
    assert committed == Counter(str(fact.update_id) for fact in house.folded(job))
    assert set(committed.values()) == {1}


@pytest.mark.parametrize("broker_has_it", [True, False], ids=["the broker has it", "the broker lost it"])
def test_update_of_a_killed_site_counts_once(house, broker_has_it):
    # given an update that was published while the aggregator was down
    house.start_aggregator()
    site = house.start_site("cleveland", step_delay_s=0.3)
    job = house.submit(stop={"versions": 3})
    initial = site.wait_for("update-published", job=job)["update"]
    site.wait_for("version-held", job=job)
    house.kill(house.aggregator)
    update = f"{initial.rpartition(':')[0]}:1"
    site.wait_for("update-published", job=job, update=update)
    # when its site is killed and started again before it has heard of it
    house.kill(site)
    if not broker_has_it:
        purge(house.running.url("aggregator"), updates_queue(job))
    house.start_site("cleveland", step_delay_s=0.3)
    house.start_aggregator()
    house.ended(job)
    # then that update counts once, like all others
    counted = Counter(str(fact.update_id) for fact in house.folded(job))
    assert counted[update] == 1
    assert set(counted.values()) == {1}


def test_site_that_is_killed_before_it_made_the_initial_params_is_asked_again(house):
    # given a job that waits for its initial params
    house.start_aggregator()
    site = house.start_site("cleveland")
    job = house.submit(stop={"versions": 1})
    house.aggregator.wait_for("job-waiting", job=job)
    # when the site that makes them is killed and is back before anybody misses it
    house.kill(site)
    house.start_site("cleveland")
    # then the job begins all the same
    house.ended(job)


# ------------------------------------------------------------------ one job that cannot go on


def test_job_that_cannot_be_read_fails_alone_and_says_why(house):
    # given a ledger of another release, with a job that this one cannot read
    (house.folder / "aggregator").mkdir()
    with Ledger(house.folder / "aggregator" / "ledger.sqlite3") as ledger:
        row = {"message_id": "1", "submitted_by": "submitter", "state": "running", "at": 1.0}
        ledger.add_job("strange-1", {"name": "strange", "future": True}, **row)
    # when the aggregator starts
    house.start_aggregator()
    # then that job has failed with the reason
    ended = house.aggregator.wait_for("job-ended", job="strange-1", state="failed")
    assert "future" in ended["text"]
    # and other jobs are served
    house.start_site("cleveland", status_interval_s=0.5)
    house.ended(house.submit(stop={"versions": 1}))


def test_job_that_stands_still_says_why_in_the_log(house):
    # given a job that nobody can train
    house.start_aggregator()
    job = house.submit()
    # when it has stood still for a while, then the log and the watchers are told what it waits for
    said = house.aggregator.wait_for("job-waiting", job=job)
    assert "0 of 1 accepted" in said["text"]
