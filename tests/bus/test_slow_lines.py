"""A line on which bytes still move is waited for, however slow; one that is silent is given up, and quickly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from fedbus.bus.connection import LinkState, Session
from fedbus.bus.link import Channel
from fedbus.bus.publisher import Publisher
from fedbus.errors import ConnectionLostError

KIB = 1 << 10
SMALL_BUFFER = 4 * KIB
SOON = timedelta(seconds=1)

Connect = Callable[..., Any]


class ThinLine:
    """A link to the broker that passes `bytes_per_s` upwards, and holds hardly any on the way."""

    def __init__(self, broker: str) -> None:
        self._target = urlsplit(broker)
        self._passing = asyncio.Event()
        self.bytes_per_s = 1e9

    def url(self, url: str) -> str:
        return url.replace(f":{self._target.port}/", f":{self.port}/")

    async def up(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        listening.bind(("127.0.0.1", 0))
        self.port: int = listening.getsockname()[1]
        self._passing.set()
        self._server = await asyncio.start_server(self._serve, sock=listening, limit=SMALL_BUFFER)

    def stick(self) -> None:
        """The connections that are open now take nothing any more; new ones do."""
        self._passing.clear()
        self._passing = asyncio.Event()
        self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._upwards(reader, up_writer), self._downwards(up_reader, writer))

    async def _upwards(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        passing = self._passing
        while data := await source.read(KIB):
            await passing.wait()
            await asyncio.sleep(len(data) / self.bytes_per_s)  # this is what a slow line does
            sink.write(data)
        sink.close()

    async def _downwards(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(64 * KIB):
            sink.write(data)
        sink.close()

    async def down(self) -> None:
        self._server.close()


@pytest.fixture
async def line(vhost: Any) -> AsyncIterator[ThinLine]:
    thin = ThinLine(vhost.url("aggregator"))
    await thin.up()
    yield thin
    await thin.down()


@pytest.fixture
async def told() -> list[LinkState]:
    return []


@pytest.fixture
async def session(line: ThinLine, vhost: Any, open_session: Connect, told: list[LinkState]) -> Session:
    """A session over the thin line that waits SOON for answers."""
    url = line.url(vhost.url("aggregator"))
    return await open_session(url, answer_within=SOON, on_state=lambda state, _: told.append(state))


async def test_a_call_behind_bulk_on_a_slow_line_is_waited_for(session, line, queue, envelope, told):
    # given an upload that takes the line four times as long as an answer may take
    publisher = Publisher(session)
    await publisher.publish(envelope(queue))
    line.bytes_per_s = 64 * KIB
    upload = asyncio.create_task(publisher.publish(envelope(queue, bytes(256 * KIB))))
    await asyncio.sleep(0)
    # when the broker is asked something behind it
    async with asyncio.timeout(20):
        channel = await session.channel()
        asked = await channel.messages(queue)
        await upload
    # then the answer comes, on the same link
    assert asked >= 1
    assert told == [LinkState.CONNECTED]


async def test_publishes_on_a_line_slower_than_any_that_was_thought_of_are_confirmed(
    session, line, queue, envelope, told
):
    publisher = Publisher(session)
    await publisher.publish(envelope(queue))
    line.bytes_per_s = 16 * KIB
    async with asyncio.timeout(20):
        await publisher.publish_many((envelope(queue, bytes(4 * KIB)) for _ in range(16)), window=16)
    assert told == [LinkState.CONNECTED]


async def test_a_silent_line_full_of_bulk_is_given_up_and_replaced_in_seconds(session, line, queue, envelope, told):
    # given an upload that is stuck halfway, for ever
    publisher = Publisher(session)
    await publisher.publish(envelope(queue))
    line.stick()
    upload = asyncio.create_task(publisher.publish(envelope(queue, bytes(4 << 20))))
    await asyncio.sleep(0)
    # when a call has no answer
    with pytest.raises(ConnectionLostError, match="did not answer"):
        await session.channel()
    # then nobody waits for the old connection to take what is unsent
    async with asyncio.timeout(20):
        await upload
    assert told == [LinkState.CONNECTED, LinkState.LOST, LinkState.CONNECTED]


async def test_a_session_that_ends_while_it_drops_a_silent_link_leaves_nothing_behind(line, vhost):
    # given a session that has just given its link up
    async with Session(line.url(vhost.url("aggregator")), name="test", answer_within=SOON) as session:
        await session.ready()
        before = asyncio.all_tasks()
        line.stick()
        with pytest.raises(ConnectionLostError):
            await session.channel()
        await asyncio.sleep(0)
    # when it has ended, then none of its tasks is left to hang the end of the process
    left = {task for task in asyncio.all_tasks() - before if "ThinLine" not in repr(task)}
    assert not left


async def ask_on_and_on(channel: Channel, queue: str) -> None:
    with contextlib.suppress(ConnectionLostError):
        while True:
            await channel.messages(queue)


async def test_a_call_is_given_up_when_later_ones_are_answered_however_much_moves(session, queue, told):
    # given a call that the broker has forgotten
    link = await session._up()
    forgotten = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(link.settled("publish", forgotten, SOON.total_seconds(), publishing=True))
    await asyncio.sleep(0)
    # when calls that were made after it are answered, on and on
    asking = asyncio.create_task(ask_on_and_on(await session.channel(), queue))
    # then it is not waited for beyond its time
    async with asyncio.timeout(20):
        with pytest.raises(ConnectionLostError, match="did not answer"):
            await waiting
    await asyncio.wait([asking])
    # and the link is replaced
    async with asyncio.timeout(20):
        while told[-1] is not LinkState.CONNECTED or len(told) < 3:
            await session.channel()
    assert told == [LinkState.CONNECTED, LinkState.LOST, LinkState.CONNECTED]
