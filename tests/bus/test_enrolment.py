"""A login taken away, or given another password, on a broker that others are using."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ProbableAuthenticationError

from fedbus.broker.node import PrivateNode
from fedbus.bus import topology as t
from fedbus.bus.connection import LinkState, Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.declare import declare, delete_queue, exists
from fedbus.bus.envelope import Envelope
from fedbus.bus.publisher import Publisher
from fedbus.errors import LoginError, NodeError
from tests.acts import lasting
from tests.waits import SOON


@pytest.fixture
def enrolled(shared_node: Any) -> Callable[[str], PrivateNode]:
    """Enrols a site on the node of this test run; it is gone after the test."""
    names: list[str] = []

    def enrol(name: str) -> PrivateNode:
        names.append(name)
        shared_node.node.add_site(name)
        return shared_node.node

    yield enrol
    for name in set(names) & set(shared_node.node.logins.names()):
        shared_node.node.remove_site(name)


def login(url: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(lasting(url))


def order(site: str, number: int = 0) -> Envelope:
    """A control message to one site."""
    key = t.control_key_site(site)
    return Envelope(exchange=t.CONTROL, routing_key=key, type="x", body=b"wait", message_id=f"order-{number}")


def control_of(node: PrivateNode) -> Session:
    return Session(node.url("aggregator"), name="aggregator/test")


@asynccontextmanager
async def uploading(node: PrivateNode, site: str) -> AsyncIterator[list[str]]:
    """`site` uploads one message after another; what its session is told while the block runs."""
    told: list[str] = []
    confirmed = asyncio.Event()
    async with control_of(node) as aggregator:
        await declare(
            aggregator,
            t.job_updates("undisturbed") + t.Topology(bindings=(t.updates_from("undisturbed", site),)),
        )
        async with Session(
            node.url(site), name=f"{site}/test", on_state=lambda state, _: told.append(state)
        ) as session:

            async def upload() -> None:
                publisher, number = Publisher(session), 0
                while True:
                    number += 1
                    key = t.update_key("undisturbed", site)
                    await publisher.publish(
                        Envelope(exchange=t.UPDATES, routing_key=key, type="x", body=b"x", message_id=f"u{number}")
                    )
                    confirmed.set()

            uploads = asyncio.create_task(upload())
            await confirmed.wait()
            yield told
            confirmed.clear()
            await confirmed.wait()  # it still goes on
            uploads.cancel()
        await delete_queue(aggregator, t.updates_queue("undisturbed"))


async def test_a_removed_login_is_cut_off_at_once_and_others_keep_their_connections(enrolled):
    # given two sites, each with an open connection
    node = enrolled("left-out")
    enrolled("stays")
    async with uploading(node, "stays") as told:
        gone = await asyncio.to_thread(login, node.url("left-out"))
        url = node.url("left-out")
        # when one is removed
        await asyncio.to_thread(node.remove_site, "left-out")
        # then its connection is closed, its password opens nothing, its queue and its file are gone
        with pytest.raises(AMQPConnectionError):
            await asyncio.to_thread(gone.process_data_events, SOON.total_seconds())
        with pytest.raises(ProbableAuthenticationError):
            await asyncio.to_thread(login, url)
        async with control_of(node) as aggregator:
            assert not await exists(aggregator, t.site_queue("left-out"))
        assert "left-out" not in node.status().logins
    # and the other one never noticed
    assert told == [LinkState.CONNECTED]


async def test_a_site_enrolled_again_gets_another_password_and_an_empty_queue(enrolled):
    node = enrolled("comes-back")
    before = node.url("comes-back")
    async with control_of(node) as aggregator:
        await Publisher(aggregator).publish(order("comes-back"))
    await asyncio.to_thread(node.remove_site, "comes-back")
    await asyncio.to_thread(node.add_site, "comes-back")
    assert node.url("comes-back") != before
    async with Session(node.url("comes-back"), name="test") as session:
        assert await exists(session, t.site_queue("comes-back"))
        async with Consumer(session, t.site_queue("comes-back"), prefetch=1) as deliveries:
            async with control_of(node) as aggregator:
                await Publisher(aggregator).publish(order("comes-back", 2))
            assert (await anext(deliveries)).envelope.message_id == "order-2"


async def test_another_password_keeps_the_queue_and_what_waits_and_cuts_off_who_has_the_old_one(enrolled):
    # given a site with an open connection and a message that waits
    node = enrolled("rotated")
    enrolled("stays")
    old = node.url("rotated")
    async with uploading(node, "stays") as told:
        async with control_of(node) as aggregator:
            await Publisher(aggregator).publish(order("rotated"))
        thief = await asyncio.to_thread(login, old)
        # when it gets another password
        path = await asyncio.to_thread(node.rotate, "rotated")
        # then the old one is refused, also to who was already inside
        with pytest.raises(AMQPConnectionError):
            await asyncio.to_thread(thief.process_data_events, SOON.total_seconds())
        with pytest.raises(LoginError):
            async with Session(old, name="test") as session:
                await session.ready()
        # and the new one gets what waited
        async with (
            Session(path.read_text(), name="test") as session,
            Consumer(session, t.site_queue("rotated"), prefetch=1) as deliveries,
        ):
            assert (await anext(deliveries)).envelope.message_id == "order-0"
    assert told == [LinkState.CONNECTED]


def test_a_start_does_not_bring_a_removed_login_back_nor_an_old_password(throw_away_node):
    # given a node that lost one site and gave another one a new password
    node = throw_away_node()
    node.start(sites=["left-out", "rotated"])
    removed, old = node.url("left-out"), node.url("rotated")
    node.remove_site("left-out")
    node.rotate("rotated")
    # when it is started again
    node.stop()
    node.start()
    # then that is how it stays
    for url in (removed, old):
        with pytest.raises(ProbableAuthenticationError):
            login(url)
    login(node.url("rotated")).close()
    assert node.status().logins == ("aggregator", "rotated", "submitter")


def test_a_removal_that_was_cut_short_is_completed_by_the_same_command(enrolled):
    # given a site whose file is gone while the broker still knows it
    node = enrolled("halfway")
    url = node.url("halfway")
    node.logins.remove("halfway")
    # when it is removed again
    node.remove_site("halfway")
    # then the broker has forgotten it too
    with pytest.raises(ProbableAuthenticationError):
        login(url)
    with pytest.raises(NodeError, match="there is no login 'halfway': known are aggregator"):
        node.remove_site("halfway")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("aggregator", "cannot be removed; `fedbus broker rotate aggregator` gives it a new password"),
        ("../../etc", "must be 1 to 40"),
        ("nobody", "there is no login 'nobody'"),
    ],
)
def test_what_is_no_site_cannot_be_removed(shared_node, name, says):
    with pytest.raises(NodeError, match=says):
        shared_node.node.remove_site(name)
    assert "aggregator" in shared_node.node.status().logins


def test_a_login_that_is_not_there_gets_no_password(shared_node):
    with pytest.raises(NodeError, match="there is no login 'nobody' to give another password: known are"):
        shared_node.node.rotate("nobody")


@pytest.mark.parametrize("command", ["add_site", "remove_site", "rotate"])
def test_a_node_that_does_not_run_says_what_to_do_and_changes_nothing(tmp_path, command):
    node = PrivateNode(tmp_path / "node")
    node.logins.write(["mercy"], address="127.0.0.1:5672")
    before = node.url("mercy")
    with pytest.raises(NodeError, match=r"start it with `fedbus broker start`, then give this command again"):
        getattr(node, command)("mercy")
    assert node.url("mercy") == before
