"""The link of a chaos run: a TCP connection that is cut, silent, slow or refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fedbus.bench.chaos.proxy import Backstage, Proxy

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def echo() -> AsyncIterator[str]:
    """A server that sends back what it gets, as a broker's URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"amqp://site:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/fedbus"
    server.close()


@pytest.fixture
async def link(echo: str) -> AsyncIterator[Proxy]:
    link = Proxy(echo)
    await link.up()
    yield link
    await link.close()


async def connected(link: Proxy) -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    return reader, writer


async def passes(connection: Connection) -> bool:
    """Whether a word comes back, asked with a limit that only a silent link reaches."""
    reader, writer = connection
    writer.write(b"word")
    try:
        async with asyncio.timeout(0.2):
            return await reader.readexactly(4) == b"word"
    except TimeoutError:
        return False


async def test_a_silent_link_holds_back_and_then_passes_everything(link: Proxy) -> None:
    old = await connected(link)
    assert await passes(old)
    link.silence()
    new = await connected(link)
    assert [await passes(old), await passes(new)] == [False, False]
    link.resume()
    async with asyncio.timeout(5):
        assert [await reader.readexactly(4) for reader, _ in (old, new)] == [b"word", b"word"]


async def test_a_stalled_link_is_silent_for_connections_that_were_there(link: Proxy) -> None:
    old = await connected(link)
    assert await passes(old)
    link.stall()
    assert not await passes(old)
    assert await passes(await connected(link))


async def test_a_cut_link_breaks_what_it_held_back_and_takes_new_connections(link: Proxy) -> None:
    reader, writer = await connected(link)
    assert await passes((reader, writer))
    link.silence()
    link.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(4)
    link.resume()
    assert await passes(await connected(link))


async def test_a_link_that_is_down_refuses_until_it_is_up_at_the_same_port(link: Proxy) -> None:
    port = link.port
    link.down()
    with pytest.raises(ConnectionRefusedError):
        await connected(link)
    await link.up(port)
    assert await passes(await connected(link))


async def test_a_slow_link_passes_so_many_bytes_in_a_second(link: Proxy) -> None:
    reader, writer = await connected(link)
    assert await passes((reader, writer))
    link.slow(1000)
    began = asyncio.get_running_loop().time()
    writer.write(b"x" * 100)
    await reader.readexactly(100)
    assert asyncio.get_running_loop().time() - began >= 0.2  # 0.1 s each way


def test_backstage_runs_work_in_its_own_thread_and_breaks_its_links_at_the_end() -> None:
    with Backstage() as backstage:
        link = backstage.link("amqp://site:secret@127.0.0.1:1/fedbus", 0)
        opened = backstage.begin(asyncio.open_connection("127.0.0.1", link.port))
        assert opened.result(5)
        endless = backstage.begin(asyncio.Event().wait())
    assert endless.cancelled()
    assert link.url("amqp://site:secret@127.0.0.1:1/fedbus").endswith(f"127.0.0.1:{link.port}/fedbus")
