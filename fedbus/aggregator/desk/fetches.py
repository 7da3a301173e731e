"""Params that submitters fetch: opened once, then asked for part by part, each part a message of its own.

Whoever fetches asks for the next parts when earlier ones have come, so that no more than it has asked for is under way,
and it may ask for MOST_ASKED at once. Nothing is written, nothing of a model is kept in memory but the parts that are
being sent. A fetch that has got every part, or asks for none for IDLE_S, lets its file go.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import structlog

from fedbus.aggregator.job.kept_versions import open_version
from fedbus.aggregator.model.params_bytes import ParamsBytes
from fedbus.aggregator.trouble import words
from fedbus.aggregator.workers import Worker
from fedbus.bus.envelope import Envelope
from fedbus.bus.guard import Guard
from fedbus.bus.publisher import Publisher
from fedbus.bus.rpc import reply
from fedbus.core.protocol import wire
from fedbus.core.protocol.answers import ParamsOffer, Rejected, rejected, to_json
from fedbus.core.protocol.requests import PartQuery
from fedbus.errors import SealError, StoreError
from fedbus.store.rows import JobRow
from fedbus.trust.sealed_params import SealedParts
from fedbus.trust.sealing import announced

PART_BYTES = 1 << 20
MOST_ASKED = 8
MOST_AT_ONCE = 4
"""So many parts are in memory, of all fetches."""
MOST_FETCHES = 16
IDLE_S = 60.0
NO_KEYS: Mapping[str, str] = MappingProxyType({})

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, eq=False)
class Fetch:
    """Params that `login` is fetching; `asked` counts the parts that are being sent."""

    login: str
    params: ParamsBytes
    last_asked: float
    seal: SealedParts | None = None
    asked: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part that is to be sent."""

    fetch: Fetch
    offset: int


class Fetches:
    """`folder` is that of all jobs; `worker` reads the files, `publisher` sends the parts, `guard` has them sealed."""

    def __init__(
        self,
        folder: Path,
        *,
        worker: Worker,
        publisher: Publisher,
        guard: Guard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._guard = guard
        self._folder = folder
        self._worker = worker
        self._publisher = publisher
        self._clock = clock
        self._fetches: dict[str, Fetch] = {}
        self._room = asyncio.Semaphore(MOST_AT_ONCE)

    async def begin(
        self, row: JobRow, wanted: str | int, login: str, seal_keys: Mapping[str, str] = NO_KEYS
    ) -> ParamsOffer | Rejected:
        """Open a version; the answer says which it is, its size and how to ask for its parts.

        seal_keys: what the parts are sealed to, where there are kits.
        """
        await self.drop_idle()
        if len(self._fetches) >= MOST_FETCHES:
            message = f"{MOST_FETCHES} fetches are under way, more are not served at once: fetch again in a minute"
            return rejected("", message)
        try:
            version, params = await self._worker(open_version, self._folder / row.job, row, wanted)
        except StoreError as exc:
            return rejected("version", str(exc))
        fetch = Fetch(login=login, params=params, last_asked=self._clock())
        offer = ParamsOffer(
            of=secrets.token_hex(16), version=version, size_bytes=params.size_bytes, part_bytes=PART_BYTES
        )
        try:
            if self._guard is not None:
                fetch.seal, key = _seal(self._guard, offer, login, seal_keys)
                offer = replace(offer, key=key)
        except SealError as exc:
            await self._worker(params.close)
            return rejected("seal_keys", str(exc))
        self._fetches[offer.of] = fetch
        return offer

    def take(self, query: PartQuery, login: str) -> Part | Rejected:
        """The part that is asked for, to be given to `send`; a rejection when it cannot be had."""
        fetch, offset = self._fetches.get(query.of), query.offset
        if fetch is None or fetch.login != login:
            message = f"no such fetch: it was idle for {IDLE_S:.0f} s, or the aggregator was started anew; fetch again"
            return rejected("of", message)
        if not 0 <= offset < fetch.params.size_bytes:
            message = f"offset: expected a byte of the file, 0 to {fetch.params.size_bytes - 1}"
            return rejected("offset", message)
        if fetch.asked >= MOST_ASKED:
            message = f"ask for at most {MOST_ASKED} parts at once"
            return rejected("", message)
        fetch.asked += 1
        fetch.last_asked = self._clock()
        return Part(fetch=fetch, offset=offset)

    async def send(self, asked: Envelope, part: Part) -> None:
        """Answer with a part, or with what went wrong."""
        fetch = part.fetch
        try:
            async with self._room:
                data = await self._worker(fetch.params.read, part.offset, PART_BYTES)
                headers, body = ({}, data) if fetch.seal is None else fetch.seal.seal(data, part.offset)
                headers["digest"] = part_digest(body)
                await reply(
                    self._publisher,
                    asked,
                    body,
                    type="part",
                    content_type="application/octet-stream",
                    headers=headers,
                )
            fetch.sent_bytes += len(data)
        except Exception as exc:
            log.exception("part-not-sent", offset=part.offset)
            answer = rejected("", f"the aggregator could not read it: {words(exc)}")
            await reply(self._publisher, asked, wire.to_json(to_json(answer)), type="answer")
        finally:
            fetch.asked -= 1
            fetch.last_asked = self._clock()
        if fetch.sent_bytes >= fetch.params.size_bytes:
            await self._drop([fetch])

    async def watch(self) -> None:
        """Let go what nobody fetches any more, for ever."""
        try:
            while True:
                await asyncio.sleep(IDLE_S / 4)
                await self.drop_idle()
        finally:
            for fetch in self._fetches.values():
                fetch.params.close()

    async def drop_idle(self) -> None:
        """Let go what nobody has asked for a part of for IDLE_S."""
        since = self._clock() - IDLE_S
        await self._drop([f for f in self._fetches.values() if not f.asked and f.last_asked < since])

    async def _drop(self, fetches: list[Fetch]) -> None:
        gone = [name for name, fetch in self._fetches.items() if fetch in fetches and not fetch.asked]
        for name in gone:
            fetch = self._fetches.pop(name)
            await self._worker(fetch.params.close)


def _seal(guard: Guard, offer: ParamsOffer, login: str, keys: Mapping[str, str]) -> tuple[SealedParts, str]:
    return SealedParts.begun(
        announced(keys, guard.suite),
        federation=guard.identity.federation,
        login=login,
        of=offer.of,
        size_bytes=offer.size_bytes,
        part_bytes=offer.part_bytes,
    )


def part_digest(data: bytes) -> str:
    """What comes with a part, so that its receiver sees whether it is whole."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
