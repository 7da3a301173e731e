"""Sessions on a real broker: what they say when they cannot connect, and that they come back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from fedbus.bus.connection import Backoff, LinkState, Session
from fedbus.bus.url import BrokerUrl
from fedbus.errors import LoginError, SettingsError, UnreachableError


class States:
    """Records what a session tells, and lets a test wait for a state."""

    def __init__(self) -> None:
        self.told: list[tuple[LinkState, str]] = []
        self._news = asyncio.Event()

    def __call__(self, state: LinkState, words: str) -> None:
        self.told.append((state, words))
        self._news.set()

    async def until(self, state: LinkState, times: int = 1) -> None:
        async with asyncio.timeout(20):
            while [told for told, _ in self.told].count(state) < times:
                self._news.clear()
                await self._news.wait()


async def test_session_that_loses_its_link_connects_again(proxy, vhost, open_session):
    states = States()
    session = await open_session(proxy.url(vhost.url("site-a")), on_state=states)

    proxy.cut()
    await states.until(LinkState.CONNECTED, times=2)

    assert session.connected
    assert [state for state, _ in states.told] == [LinkState.CONNECTED, LinkState.LOST, LinkState.CONNECTED]


async def test_session_waits_for_a_broker_that_is_down(proxy, vhost, open_session):
    states = States()
    session = await open_session(proxy.url(vhost.url("site-a")), on_state=states)

    proxy.down()
    await states.until(LinkState.UNREACHABLE, times=2)
    assert not session.connected
    await proxy.up(proxy.port)
    await states.until(LinkState.CONNECTED, times=2)

    assert session.connected


async def test_wrong_password_ends_the_block_at_once_and_is_not_shown(vhost):
    url = vhost.url("site-a").replace("site-a:", "site-a:not-the-")

    with pytest.raises(LoginError, match="refused user 'site-a'") as caught:
        async with Session(url, name="test") as session:
            await session.ready()

    assert "wrong user or password" in str(caught.value)
    assert "site-a:***@127.0.0.1" in str(caught.value)
    assert "not-the-" not in str(caught.value)


async def test_wrong_password_is_tried_again_when_asked_for(vhost):
    states = States()
    url = vhost.url("site-a").replace("site-a:", "site-a:not-the-")

    async with Session(url, name="test", retry_login=True, backoff=_quick(), on_state=states):
        await states.until(LinkState.REFUSED, times=2)

    assert "next try in" in states.told[-1][1]


async def test_unknown_vhost_is_named(vhost):
    url = vhost.url("site-a").rpartition("/")[0] + "/elsewhere"

    with pytest.raises(LoginError, match="not virtual host 'elsewhere'"):
        async with Session(url, name="test") as session:
            await session.ready()


async def test_unreachable_broker_is_given_up_in_words(unused_tcp_port):
    url = f"amqp://site-a:secret@127.0.0.1:{unused_tcp_port}/fedbus"

    with pytest.raises(UnreachableError, match=f"no RabbitMQ answers at 127.0.0.1:{unused_tcp_port}") as caught:
        async with Session(url, name="test", give_up_after=timedelta(0)) as session:
            await session.ready()

    assert "fedbus broker start" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_something_else_than_a_broker_is_unreachable():
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    with pytest.raises(UnreachableError, match=f"127.0.0.1:{port}"):
        async with Session(f"amqp://a:b@127.0.0.1:{port}/", name="test", give_up_after=timedelta(0)) as session:
            await session.ready()
    server.close()


@pytest.mark.parametrize("url", ["http://a:b@host/", "amqp://host/", "amqp://a:secret@", "amqp://a:secret@host:port/"])
def test_malformed_url_is_a_settings_error_without_the_password(url):
    async def make() -> None:
        Session(url, name="test")

    with pytest.raises(SettingsError, match="expected amqps://host:5671/vhost") as caught:
        asyncio.run(make())

    assert "secret" not in str(caught.value)


async def test_error_of_the_block_comes_out_as_it_is(vhost):
    with pytest.raises(KeyError):
        async with Session(vhost.url("site-a"), name="test"):
            raise KeyError("mine")


async def test_session_on_a_stalled_link_closes_in_seconds(proxy, vhost):
    loop = asyncio.get_running_loop()
    async with Session(proxy.url(vhost.url("site-a")), name="test") as session:
        await session.ready()
        proxy.stall()
        began = loop.time()

    assert loop.time() - began < 5


async def test_connection_carries_its_name(vhost, open_session):
    await open_session(vhost.url("site-a"), name="site-a/control")

    listed = vhost.node.ctl("list_connections", "client_properties")

    assert "site-a/control" in listed


def test_pauses_grow_to_their_limit():
    pauses = Backoff(first=timedelta(seconds=1), most=timedelta(seconds=30)).pauses()

    drawn = [next(pauses) for _ in range(8)]

    ceilings = [1, 2, 4, 8, 16, 30, 30, 30]
    assert all(top / 2 <= pause <= top for pause, top in zip(drawn, ceilings, strict=True))


def _quick() -> Backoff:
    return Backoff(first=timedelta(milliseconds=10), most=timedelta(milliseconds=50))


# ------------------------------------------------------------------ several places


async def test_a_place_that_is_down_or_silent_is_passed_over(proxy, vhost, open_session, unused_tcp_port):
    # given a broker of three places: nothing listens at the first, the second takes connections and says nothing
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    places = [unused_tcp_port, silent.sockets[0].getsockname()[1], proxy.port]
    url = BrokerUrl.parse(vhost.url("site-a")).at([("127.0.0.1", port) for port in places])
    # when a session connects
    session = await open_session(url.with_password())
    # then it is the third that serves
    assert session.place.port == proxy.port
    silent.close()


async def test_a_session_goes_on_at_the_next_place(proxy, vhost, open_session):
    direct, states = BrokerUrl.parse(vhost.url("site-a")), States()
    url = direct.at([("127.0.0.1", proxy.port), ("127.0.0.1", direct.port)])
    session = await open_session(url.with_password(), on_state=states)
    assert session.place.port == proxy.port

    proxy.cut()
    await states.until(LinkState.CONNECTED, times=2)

    assert session.place == direct


async def test_every_place_that_does_not_let_us_in_is_told(vhost, unused_tcp_port):
    wrong = vhost.url("site-a").replace("site-a:", "site-a:not-the-")
    url = BrokerUrl.parse(wrong)
    both = url.at([("127.0.0.1", unused_tcp_port), (url.host, url.port)]).with_password()

    with pytest.raises(LoginError, match="refused user 'site-a'") as caught:
        async with Session(both, name="test") as session:
            await session.ready()

    assert f"no RabbitMQ answers at 127.0.0.1:{unused_tcp_port}" in str(caught.value)
    assert "not-the-" not in str(caught.value)
