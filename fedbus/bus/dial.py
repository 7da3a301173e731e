"""Opening a link to the broker: to the first of its places that lets us in, and in words when none does.

Places are tried in turn. One that has not answered after a second no longer holds the next one up, and may still win:
a node that is frozen, or a host that is switched off, costs that second, and a slow line loses nothing (the idea of
RFC 8305 for addresses). What one place says is said with its address.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aio_pika.exceptions import AMQPError, AuthenticationError, InvalidFrameError, ProbableAuthenticationError

from fedbus.bus.link import Link
from fedbus.bus.tls_probe import TlsTrouble, context_for, look, unknown_name
from fedbus.bus.translate import nameless, reason
from fedbus.bus.url import BrokerUrl
from fedbus.errors import BusError, ConnectionLostError, LoginError, TlsError, TrustError, UnreachableError

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

CONNECT_TIMEOUT_S = 10.0
NEXT_PLACE_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a connection is made: its name at the broker, seconds of its heartbeat, and of the wait for an answer."""

    name: str
    heartbeat_s: int
    answer_s: float
    on_blocked: Callable[[Link], None]


class Dialer:
    """Opens links to the places of `url`. With an `identity` its certificate logs in, read anew each time."""

    def __init__(self, url: BrokerUrl, identity: Identity | None, manner: Manner) -> None:
        self._identity = identity
        self._manner = manner
        self._places = url.places
        self._url = url
        self._next = 0

    async def open(self) -> tuple[Link, BrokerUrl]:
        """A link, and the place that it leads to; the next call begins with the place after that one.

        Raises LoginError when a place refuses us and none lets us in, else UnreachableError.
        """
        tls = self._tls()
        turn = [*self._places[self._next :], *self._places[: self._next]]
        if len(turn) == 1:
            return await self._at(turn[0], tls), turn[0]
        self._next = 0
        link, place = await first_of([(place, partial(self._at, place, tls)) for place in turn])
        self._next = (self._places.index(place) + 1) % len(self._places)
        return link, place

    def _tls(self) -> ssl.SSLContext | None:
        try:
            return context_for(self._identity) if self._url.tls else None
        except TrustError as exc:
            raise TlsError(f"no connection to {self._url}: {exc}", kind="kit") from exc

    # ------------------------------------------------------------------ one place

    async def _at(self, place: BrokerUrl, tls: ssl.SSLContext | None) -> Link:
        try:
            return await self._open_link(place, tls)
        except UnreachableError as exc:
            # where nothing answers in time, a second attempt would not either
            if tls is None or isinstance(exc.__cause__, TimeoutError):
                raise
            found = await look(place, tls, self._identity)
            if found is None:
                raise
            raise TlsError(f"{place}: {found.text}", kind=found.trouble) from exc

    async def _open_link(self, place: BrokerUrl, tls: ssl.SSLContext | None) -> Link:
        how = self._manner
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await Link.open(
                    place,
                    tls=tls,
                    name=how.name,
                    heartbeat_s=how.heartbeat_s,
                    answer_s=how.answer_s,
                    on_blocked=how.on_blocked,
                )
        except TimeoutError as exc:
            raise UnreachableError(_unreachable(place, f"no answer within {CONNECT_TIMEOUT_S:.0f} s")) from exc
        except ProbableAuthenticationError as exc:
            raise self._refused(place) from exc
        except AuthenticationError as exc:
            raise LoginError(f"{place}: the broker offers other ways to log in: {reason(exc)}") from exc
        except InvalidFrameError as exc:
            if "OpenOk" not in str(exc):
                raise UnreachableError(_unreachable(place, "something answers that does not speak AMQP 0-9-1")) from exc
            # aiormq does not keep what the broker said here; a refused virtual host is the usual reason.
            login = place.user if self._identity is None else self._identity.name
            raise LoginError(
                f"the broker at {place.address} accepted user {login!r} but not virtual host "
                f"{place.vhost!r} ({place}): it does not exist, the user has no permission in it, or has "
                "too many connections; the broker's log says which"
            ) from exc
        except (AMQPError, OSError, ConnectionLostError) as exc:
            raise UnreachableError(_unreachable(place, reason(exc))) from exc
        except Exception as exc:
            if not nameless(exc):
                raise
            raise UnreachableError(_unreachable(place, "the connection was closed while it was opened")) from exc

    def _refused(self, place: BrokerUrl) -> LoginError:
        if self._identity is not None:
            return TlsError(f"{place}: {unknown_name(self._identity).text}", kind=TlsTrouble.UNKNOWN_NAME)
        return LoginError(
            f"the broker at {place.address} refused user {place.user!r} ({place}): wrong "
            "user or password; correct the broker URL (FEDBUS_BROKER_URL), or have the user created on the broker"
        )


def _unreachable(place: BrokerUrl, why: str) -> str:
    plain = not place.tls and ("reset" in why or "closed" in why)
    hint = "; if it is a broker that speaks TLS alone, as a provisioned one: amqps:// and a kit" if plain else ""
    return (
        f"no RabbitMQ answers at {place.address} ({why}{hint}); start it (`fedbus broker start`) "
        f"or correct the broker URL {place} (FEDBUS_BROKER_URL)"
    )


# ------------------------------------------------------------------ several places

Attempt = tuple[BrokerUrl, Callable[[], Coroutine[Any, Any, Link]]]


async def first_of(attempts: Sequence[Attempt], *, next_after_s: float = NEXT_PLACE_AFTER_S) -> tuple[Link, BrokerUrl]:
    """The first link that comes about; another attempt begins when one has failed or been silent for a while.

    The others are given up, and a link that one of them still brings is closed. Raises what `_none_of` says.
    """
    waiting, under_way = list(attempts), dict[asyncio.Task[Link], BrokerUrl]()
    failed: list[BusError] = []
    try:
        while waiting or under_way:
            if waiting:
                place, begin = waiting.pop(0)
                under_way[asyncio.create_task(begin(), name=f"connect to {place.address}")] = place
            limit_s = next_after_s if waiting else None
            done, _ = await asyncio.wait(under_way, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                place = under_way.pop(task)
                try:
                    return task.result(), place
                except (LoginError, UnreachableError) as exc:
                    failed.append(exc)
    finally:
        await _give_up(under_way)
    raise _none_of(failed)


async def _give_up(tasks: Collection[asyncio.Task[Link]]) -> None:
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Link):
            await ended.close()


def _none_of(failed: Sequence[BusError]) -> BusError:
    """One error for all places: a refusal says more than silence, for a broker knows the same logins everywhere."""
    refusals = [exc for exc in failed if isinstance(exc, LoginError)]
    worst = (refusals or failed)[0]
    if others := [str(exc).partition("; ")[0] for exc in failed if exc is not worst]:
        words = f"{worst}. Of its other places: {'; '.join(others)}"
        return TlsError(words, kind=worst.kind) if isinstance(worst, TlsError) else type(worst)(words)
    return worst
