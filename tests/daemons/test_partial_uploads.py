"""A site that goes away in the middle of an upload: its bytes are dropped, and nothing is lost when it goes on."""

from __future__ import annotations

import asyncio

import pytest

from fedbus.bench.abuse.cases import frames, manifest_of
from fedbus.bench.abuse.logins import site
from fedbus.bus.connection import Session
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.local.federation import wait_until
from fedbus.store.ledger import Ledger
from tests.waits import SOON

UPDATE = "site-b:0600d000:0"


@pytest.fixture
def job(house):
    """A job whose updates have five chunks, at an aggregator with little patience."""
    house.start_aggregator(partial_timeout_s=0.5)
    house.start_site("cleveland")
    job = house.submit(task_config={"numel": 300_000, "step_s": 0.2}, chunk_bytes=256 * 1024, stop={"versions": 10_000})
    house.committed(1)
    return job


@pytest.fixture
def update(house, job):
    """An update of that job by a site without a daemon: chunks, then the manifest."""
    with Ledger(house.folder / "aggregator" / "ledger.sqlite3") as ledger:
        (row,) = ledger.jobs()
    layout = Layout.from_dict(row.layout)
    bodies = frames(layout, seed=1, chunk_bytes=row.spec["chunk_bytes"])
    messages = [
        m.Chunk(job=job, transfer=UPDATE, part="update", index=index, count=len(bodies), body=body)
        for index, body in enumerate(bodies)
    ]
    messages.append(manifest_of(job, UPDATE, layout, bodies))
    return [Post().from_trainer(message, site="site-b") for message in messages]


async def test_an_upload_that_stopped_is_dropped_asked_for_and_folded_when_its_site_goes_on(house, job, update):
    assert len(update) == 6
    async with asyncio.timeout(60), site("site-b", house.running.url("site-b")) as by_hand:
        # given a site that sends two chunks of an update and goes away
        await by_hand.take_part(job)
        await by_hand.publisher.publish_many(update[:2])
        dropped = await asyncio.to_thread(house.aggregator.wait_for, "upload-dropped", site="site-b")
        assert dropped["text"].startswith(f"site-b: 2 of 5 chunks of update {UPDATE} came, then nothing for")
        # when it comes back and goes on where it was
        await by_hand.publisher.publish_many(update[2:])
        # then it is asked for all of it, and the update is folded
        await by_hand.asked_for(UPDATE)
        await by_hand.publisher.publish_many(update)
        assert (await by_hand.receipt(UPDATE)).outcome is m.Outcome.FOLDED


def test_a_site_that_is_asked_sends_what_awaits_its_receipt_once_more(house):
    # given a site whose first update awaits its receipt, because the aggregator died over it
    house.start_aggregator(fault="complete-not-taken:2")  # the initial params are complete first
    cleveland = house.start_site("cleveland")
    job = house.submit()

    def published() -> list[str]:
        return [line["update"] for line in cleveland.events() if line["event"] == "update-published"]

    wait_until(lambda: len(published()) == 2, within=SOON, what="the first update")
    wait_until(lambda: not house.aggregator.alive, within=SOON, what="the end of the aggregator")
    _, update_id = published()

    async def ask() -> None:
        async with Session(house.running.url("aggregator"), name="test") as session:
            request = m.ResendRequest(job=job, update_id=update_id)
            await Publisher(session).publish(Post().control(request, site="cleveland"))

    # when it is asked for it
    asyncio.run(ask())
    # then it publishes all of it again
    wait_until(lambda: published()[1:] == [update_id] * 2, within=SOON, what="the second publish")
