"""Model logs of a federation with kits, on a real broker: who reads which version, and that kills change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.stream import StreamReader
from fedbus.errors import LoginError, SealError
from fedbus.local.federation import Daemon, wait_until
from fedbus.runtime.faults import Point
from fedbus.site.job.model_log import kept_keys
from fedbus.trust.epochs import LogKeys, epoch_of
from fedbus.trust.identity import Identity
from tests.waits import SOON

POLICY = """
format = 1
[jobs]
submitters = [{name = "submitter", fingerprint = "any"}]
kinds = ["training"]
min_contributors = 1
min_batch_size = 1
min_examples = 1
max_steps_per_update = 1000
max_steps_per_day = 1000000
[privacy]
filters = []
[hours]
zone = "Europe/Berlin"
open = ["mon-sun 00:00-24:00"]
[out]
bytes_per_day = 1000000000
metrics = ["*"]
intervals = true
statistics = true
prints = true
local_models = true
[tasks.synthetic]
data = "any"
params = {"task_config.numel" = "any", "local.steps" = "any", "local.batch_size" = "any", "local.learning_rate" = "any", "local.evaluate" = "any"}
"""  # noqa: E501
LONG = {"stop": {"versions": 1000}}


def start_site(house, name: str) -> Daemon:
    """A site whose hospital lets it do what these tests ask."""
    policy = house.folder / "policy.toml"
    policy.write_text(POLICY)
    return house.start_site(name, policy=policy, step_delay_s=0.05)


def records_of(house, job: str, login: str, *, epoch: int = 0) -> list[Envelope]:
    """What a login reads of a job's model log, from the first record to the first manifest of an epoch."""

    async def read() -> list[Envelope]:
        kit = house.running.kit(login)
        async with Session(house.running.url(login), name="test", identity=Identity.load(kit)) as session:
            found = []
            async for record in StreamReader(session, house.model_log(job)).follow("first"):
                found.append(record.envelope)
                if record.envelope.type == "version" and epoch_of(record.envelope.headers) == epoch:
                    break
            return found

    return asyncio.run(asyncio.wait_for(read(), SOON.total_seconds()))


def folder_of(house, site: str, job: str) -> Path:
    return house.folder / "sites" / site / "jobs" / job


def epochs_at(house, site: str, job: str) -> Callable[[], list[int]]:
    """The epochs whose keys a site holds for a job now."""
    return lambda: [key.number for key in kept_keys(folder_of(house, site, job))]


def new_epoch(house, site: str, job: str, epoch: int) -> None:
    wait_until(lambda: epoch in epochs_at(house, site, job)(), within=SOON, what=f"epoch {epoch} at {site}")


def test_a_site_without_a_part_reads_nothing_and_one_that_left_opens_no_later_version(sealed_house):
    house = sealed_house
    house.start_aggregator()
    _, left, _ = (start_site(house, name) for name in ("site-a", "site-b", "site-c"))
    job = house.submit(sites=["site-a", "site-b"], strategy="fedasync", **LONG)
    left.wait_for("update-published", job=job)
    # the broker refuses the log to a site that the job does not name
    with pytest.raises(LoginError, match="may not do that"):
        records_of(house, job, "site-c")
    # when one of its sites leaves, with all the keys that it had
    had = LogKeys(job, kept_keys(folder_of(house, "site-b", job)))
    assert [key.number for key in had.keys] == [0]
    left.stop()
    house.aggregator.wait_for("site-left", site="site-b")
    # then what is made afterwards is of another epoch, which the others are given
    new_epoch(house, "site-a", job, 1)
    later = [r for r in records_of(house, job, "site-b", epoch=1) if epoch_of(r.headers) == 1]
    assert {record.type for record in later} == {"chunk", "version"}
    for record in later:
        with pytest.raises(SealError, match="no key of epoch 1"):
            had.opened(record.type, record.headers, record.body)
    # and when it is back, it is given what it needs, and trains on
    back = start_site(house, "site-b")
    new_epoch(house, "site-b", job, 1)
    back.wait_for("update-published", job=job)
    house.fedbus("abort", job)
    house.ended(job, state="aborted")
    # and the keys go with the job
    kept = house.folder / "sites"
    wait_until(lambda: not list(kept.rglob("epochs.json")), within=SOON, what="the end of the keys at both sites")


def test_an_aggregator_that_is_killed_while_it_publishes_goes_on_in_the_same_epoch(sealed_house):
    # given a job
    house = sealed_house
    kept = {"keep_updates": True, "checkpoint_interval_s": 0.3}
    job = ""
    for point, times in ((Point.BETWEEN_CHUNKS, 6), (Point.BEFORE_MANIFEST, 3), (Point.PUBLISHED, 3)):
        # whose aggregator is killed while a version is on its way, and again when it is back
        house.start_aggregator(**kept, fault=f"{point}:{times}")
        if not job:
            for name in ("site-a", "site-b"):
                start_site(house, name)
            job = house.submit(min_sites=2, stop={"versions": 12}, chunk_bytes=262144, task_config={"numel": 300_000})
        wait_until(lambda: not house.aggregator.alive, within=SOON, what=f"the kill {point}")
        house.running.daemons.remove(house.aggregator)
    # when it is started again
    house.start_aggregator(**kept)
    house.committed(12)
    house.ended(job)
    # then all is as if nothing had been, bit by bit
    said = house.fedbus("replay", str(house.folder / "aggregator"), "--job", job, "--verify", "-o", "json")
    assert said.code == 0, said.err
    assert [fact.version for fact in house.versions(job)] == list(range(1, 13))
    # and no site found another digest, hash or chain than it should
    assert [
        e for daemon in house.running.daemons for e in daemon.events() if e["event"] in ("resync", "job-trouble")
    ] == []


def test_earlier_versions_are_not_for_a_joiner_if_the_aggregator_says_so(sealed_house):
    house = sealed_house
    house.start_aggregator(joiners_read_earlier=False)
    start_site(house, "site-a")
    job = house.submit(**LONG)
    house.committed(2)
    # when another site joins
    joiner = start_site(house, "site-b")
    held = joiner.wait_for("version-held", job=job)["version"]
    # then it begins with a snapshot in an epoch of its own, and opens nothing before that
    assert epochs_at(house, "site-b", job)() == [1]
    assert held >= 2
    keys = LogKeys(job, kept_keys(folder_of(house, "site-b", job)))
    earlier = [r for r in records_of(house, job, "site-b", epoch=1) if epoch_of(r.headers) == 0]
    assert earlier
    for record in earlier:
        with pytest.raises(SealError):
            keys.opened(record.type, record.headers, record.body)
