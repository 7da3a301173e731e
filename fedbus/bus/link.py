"""One live AMQP connection and the channels on it, until it breaks. Sessions replace links, they never repair them.

Every call has a time limit and every error is translated. A call that is not answered in time makes the whole link
suspect, because a half-open link looks like that; the session then drops it. Two kinds of links are silent and healthy,
and are waited for: one that the broker has blocked (memory or disk alarm), and a slow one on which bytes still move.
A call is not waited for beyond its time once one that was made after it was answered: what was sent first has arrived
first, and its answer will not come. A cluster forgets confirms of a stream whose leader was cut off (seen on 3.10).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aiormq.abc import AbstractChannel as RawChannel
from aiormq.abc import AbstractConnection as RawConnection
from pamqp.common import Arguments

from fedbus.bus.bounded import MostBytes, bound_bodies
from fedbus.bus.envelope import Envelope
from fedbus.bus.translate import reason, to_amqp, translated
from fedbus.bus.transport import Connection, Transport
from fedbus.bus.url import BrokerUrl
from fedbus.errors import BusError, ConnectionLostError

# The slowest uplink that still counts as alive: a publish gets the time for all bytes before it on top of `answer_s`.
SLOWEST_BYTES_PER_S = 64 * 1024
# An answer on a slower line is waited for while as much moves in the time that it was given; heartbeats are far less.
LEAST_MOVED_BYTES = 8 * 1024
# Traffic of others must not keep a call alive for ever that the broker has forgotten.
MOST_EXTENSIONS = 20
CHECK_S = 1.0
CLOSE_TIMEOUT_S = 2.0

T = TypeVar("T")


class Link:
    """A connection that is up until `lost` has a result: the reason in words.

    `answer_s` is how long the broker may take to answer anything.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        raw: RawConnection,
        socket: Transport,
        *,
        answer_s: float,
        on_blocked: Callable[[Link], None],
    ) -> None:
        self.answer_s = answer_s
        self._connection = connection
        self._raw = raw
        self._socket = socket
        self._on_blocked = on_blocked
        loop = asyncio.get_running_loop()
        self.opened_at = loop.time()
        self._calls = 0
        self._newest_answered = 0
        self.lost: asyncio.Future[str] = loop.create_future()
        raw.closing.add_done_callback(self._closed)

    @classmethod
    async def open(
        cls,
        url: BrokerUrl,
        *,
        tls: ssl.SSLContext | None,
        name: str,
        heartbeat_s: int,
        answer_s: float,
        on_blocked: Callable[[Link], None],
    ) -> Link:
        """Connect and log in: by the certificate of `tls` when the URL has no user.

        Raises what aio_pika raises; the caller sets the time limit.
        """
        # by its parts: another parser may see another host in the same text
        connecting = aio_pika.connect(
            host=url.host,
            port=url.port,
            login=url.user,
            password=url.password,
            virtualhost=url.vhost,
            ssl=tls is not None,
            ssl_context=tls,
            auth=None if url.user else "external",
            client_properties={"connection_name": name},
            heartbeat=heartbeat_s,
            connection_class=Connection,
        )
        connection = await connecting
        if connection.transport is None:
            raise ConnectionLostError("the connection was closed while it was opened")
        raw = connection.transport.connection
        return cls(connection, raw, connection.socket, answer_s=answer_s, on_blocked=on_blocked)

    @property
    def broker(self) -> str:
        """Product and version as the broker introduced itself, such as `RabbitMQ 3.10.8`: its own words."""
        said = self._raw.server_properties or {}
        return " ".join(str(said.get(key, "unknown")) for key in ("product", "version"))[:100]

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        exc = None if closing.cancelled() else closing.exception()
        match exc:
            case None:
                self.suspect("closed")
            case asyncio.CancelledError():  # aiormq's way of saying that it has given up
                self.suspect("nothing came from the broker for three heartbeats")
            case _:
                self.suspect(reason(exc))

    @property
    def sent_bytes(self) -> int:
        """Bytes that the broker has acknowledged on this connection, see `Transport`."""
        return self._socket.sent_bytes()

    @property
    def blocked(self) -> bool:
        """True while the broker takes no publishes from this connection: a memory or disk alarm."""
        # aiormq shows this state only as ready(), which waits while blocked: one step of it is the question.
        ready = self._raw.ready()
        try:
            ready.send(None)
        except StopIteration:
            return False
        else:
            return not self.lost.done()
        finally:
            ready.close()

    async def unblocked(self) -> None:
        """Wait until publishes are taken again, or the link is lost."""
        ready: asyncio.Future[None] = asyncio.ensure_future(self._raw.ready())
        try:
            await asyncio.wait((ready, asyncio.shield(self.lost)), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()

    def suspect(self, why: str) -> None:
        """Give this link up; the session closes it and opens another."""
        if not self.lost.done():
            self.lost.set_result(why)

    async def close(self) -> None:
        """Close politely when the broker answers, by force otherwise: what is unsent would be waited for."""
        self.suspect("closed by us")
        closing = asyncio.create_task(self._connection.close(), name="close the connection")
        closing.add_done_callback(_seen)
        try:
            await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)
        finally:
            if not closing.done():  # also when we are cancelled: aiormq must not be left halfway
                self._socket.abort()
                await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel. Raises ConnectionLostError."""
        channel = self._connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await self.rpc("open a channel", channel)
        return Channel(self, channel, await channel.get_underlay_channel())

    async def rpc(self, what: str, call: Awaitable[T]) -> T:
        """Await one call to the broker for at most `answer_s`, longer while bytes move."""
        return await self.settled(what, asyncio.ensure_future(call), self.answer_s)

    async def settled(self, what: str, call: asyncio.Future[T], allowed_s: float, *, publishing: bool = False) -> T:
        """The result of a call that began just now; an error of the table of `translate` otherwise.

        The link becomes suspect when there is none `allowed_s` after bytes moved last.
        """
        call.add_done_callback(_seen)
        self._calls += 1
        number = self._calls
        # what others are sent here says nothing of a confirm
        moved = self._socket.sent_bytes if publishing else self._socket.moved_bytes
        patience = _Patience(moved, allowed_s)
        try:
            while not (await asyncio.wait({call}, timeout=min(allowed_s, CHECK_S)))[0]:
                if publishing and self.blocked:
                    self._on_blocked(self)
                    patience = _Patience(moved, allowed_s)
                elif patience.over(overtaken=self._newest_answered > number):
                    if not self.blocked:
                        self.suspect(f"no answer to '{what}' within {allowed_s:.0f} s")
                    raise ConnectionLostError(f"{what}: the broker did not answer within {allowed_s:.0f} s")
            with translated(what, publishing=publishing):
                answer = call.result()
            self._newest_answered = max(self._newest_answered, number)
            return answer
        finally:
            call.cancel()


class _Patience:
    """How long a call may still be without answer: `allowed_s`, anew when enough bytes have moved meanwhile."""

    def __init__(self, moved: Callable[[], int], allowed_s: float) -> None:
        self._moved = moved
        self._allowed_s = allowed_s
        self._extensions = 0
        self._begin()

    def _begin(self) -> None:
        self._moved_bytes = self._moved()
        self._until = asyncio.get_running_loop().time() + self._allowed_s

    def over(self, *, overtaken: bool) -> bool:
        if asyncio.get_running_loop().time() <= self._until:
            return False
        if overtaken or self._moved() - self._moved_bytes < LEAST_MOVED_BYTES:
            return True
        self._extensions += 1
        self._begin()
        return self._extensions > MOST_EXTENSIONS


class Channel:
    """One channel of a link. Never repaired: whoever needs it opens another on the session's next link."""

    def __init__(self, link: Link, channel: AbstractChannel, raw: RawChannel) -> None:
        self._link = link
        self._channel = channel
        self._raw = raw
        self._exchanges: dict[str, AbstractExchange] = {}
        self._outstanding_bytes = 0

    @property
    def closed(self) -> bool:
        return self._raw.is_closed or self._link.lost.done()

    async def close(self) -> None:
        """Close; unacked deliveries go back to their queue. A channel that is gone already is no error.

        A broker with an alarm reads nothing from who publishes: there the close is sent, and its answer not waited for.
        """
        if self.closed:
            return
        closing = asyncio.ensure_future(self._link.rpc("close a channel", self._channel.close()))
        closing.add_done_callback(_seen)
        if not self._link.blocked:
            with suppress(BusError):
                await closing

    # ------------------------------------------------------------------ publishing

    async def publish(self, envelope: Envelope, *, user_id: str, mandatory: bool) -> None:
        """Publish and wait for the confirm.

        Raises ConnectionLostError, NotTakenError, UnroutableError, RefusedError: see the table of `translate`.
        """
        size = len(envelope.body)
        self._outstanding_bytes += size
        allowed_s = self._link.answer_s + self._outstanding_bytes / SLOWEST_BYTES_PER_S
        sending = asyncio.create_task(self._send(envelope, user_id, mandatory), name=f"publish {envelope.message_id}")
        what = f"publish {envelope.type or 'message'} to {_place(envelope)}"
        try:
            await self._link.settled(what, sending, allowed_s, publishing=True)
        finally:
            self._outstanding_bytes -= size

    async def _send(self, envelope: Envelope, user_id: str, mandatory: bool) -> None:
        exchange = self._exchanges.get(envelope.exchange)
        if exchange is None:
            # ensure=False: a passive declare needs no permission but costs a round trip, and leaks (aio-pika #396).
            exchange = self._channel.default_exchange
            if envelope.exchange:
                exchange = await self._channel.get_exchange(envelope.exchange, ensure=False)
            self._exchanges[envelope.exchange] = exchange
        await exchange.publish(to_amqp(envelope, user_id), envelope.routing_key, mandatory=mandatory)

    # ------------------------------------------------------------------ consuming

    async def consume(
        self,
        queue: str,
        *,
        prefetch: int,
        on_delivery: Callable[[AbstractIncomingMessage], None],
        on_lost: Callable[[], None],
        no_ack: bool = False,
        arguments: Arguments = None,
        most_bytes: MostBytes | None = None,
    ) -> None:
        """Start a consumer. `on_delivery` must only hand off: aiormq cancels its task when the channel closes.

        Bodies longer than `most_bytes` says for their type are not kept, see `bounded`.

        `on_lost` is called when channel or link are gone, or the broker ended the consumer (its queue was deleted).
        """
        what = f"consume {queue}"
        if most_bytes is not None:
            bound_bodies(self._raw, most_bytes)
        if prefetch:
            await self._link.rpc(what, self._channel.set_qos(prefetch_count=prefetch))

        def gone(_: asyncio.Future[Any]) -> None:
            self._link.lost.remove_done_callback(gone)  # a link outlives many channels
            on_lost()

        self._link.lost.add_done_callback(gone)
        self._raw.closing.add_done_callback(gone)
        self._raw.on_consumer_cancel_callbacks.add(lambda _: on_lost())

        async def hand_off(message: AbstractIncomingMessage) -> None:
            on_delivery(message)

        source = await self._channel.get_queue(queue, ensure=False)
        await self._link.rpc(what, source.consume(hand_off, no_ack=no_ack, arguments=arguments))

    async def consumers(self, queue: str) -> int:
        """How many consumers a queue has (of a single active consumer queue: those that are active)."""
        asked = await self._link.rpc(f"look at {queue}", self._raw.queue_declare(queue, passive=True))
        return asked.consumer_count or 0

    # ------------------------------------------------------------------ declaring

    async def declare_exchange(self, name: str, kind: str) -> None:
        await self._link.rpc(f"declare exchange {name}", self._channel.declare_exchange(name, kind, durable=True))

    async def declare_queue(self, name: str, arguments: Arguments) -> None:
        declaring = self._channel.declare_queue(name, durable=True, arguments=arguments)
        await self._link.rpc(f"declare queue {name}", declaring)

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        binding = self._raw.queue_bind(queue, exchange, key)
        await self._link.rpc(f"bind {queue} to {exchange} with {key}", binding)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        unbinding = self._raw.queue_unbind(queue, exchange, key)
        await self._link.rpc(f"unbind {queue} from {exchange} with {key}", unbinding)

    async def messages(self, queue: str) -> int:
        """How many messages of a queue are ready: neither delivered nor acknowledged."""
        asked = await self._link.rpc(f"look at {queue}", self._raw.queue_declare(queue, passive=True))
        return asked.message_count or 0

    async def delete_queue(self, name: str) -> None:
        await self._link.rpc(f"delete queue {name}", self._raw.queue_delete(name))


def _seen(call: asyncio.Future[Any]) -> None:
    # When the caller was cancelled nobody asks for the outcome; asyncio would log it as forgotten.
    if not call.cancelled():
        call.exception()


def _place(envelope: Envelope) -> str:
    return f"{envelope.exchange or 'queue'} {envelope.routing_key}"
