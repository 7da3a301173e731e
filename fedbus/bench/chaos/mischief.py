"""What a bus may do at its worst, done on purpose: messages come twice, late and in another order.

Nothing is invented: every message here was, or is about to be, sent by the login that sends it again. A publish that
failed may have been delivered, a site that restarts sends its outbox once more, a restored aggregator publishes a
version a second time; so none of this may change anything.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope, Headers
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.bus.stream import Start, StreamReader
from fedbus.bus.topology import MODELS, models_key
from fedbus.core.protocol import messages as m
from fedbus.store.manifests import from_text
from fedbus.trust.identity import Identity
from fedbus.trust.sealing import SealKeys

TIMES = 2
QUIET_S = 0.5
MOST_RECORDS = 64
LIMIT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who sends again. `post` signs and seals with its kit; without a kit `url` has a password."""

    url: str
    kit: Path | None = None
    seal_keys: Path | None = None
    """The aggregator's, to which a site seals; only here does anybody else read them."""

    @property
    def identity(self) -> Identity | None:
        return None if self.kit is None else Identity.load(self.kit)

    def post(self) -> Post:
        post = Post(self.identity)
        if post.guard is not None and self.seal_keys is not None:
            post.guard.take_offered(SealKeys.load(self.seal_keys).texts())
        return post

    def session(self, post: Post | None = None) -> Session:
        """Without a post what is sent stays as it is."""
        outgoing = Post().outgoing if post is None else post.outgoing
        return Session(self.url, name="mischief", identity=self.identity, outgoing=outgoing, retry_login=True)


async def repeat_updates(login: Login, outbox: Path, job: str, site: str, *, rng: random.Random) -> int:
    """Send what is in a site's outbox again, manifest first, chunks shuffled, twice; returns the messages sent."""
    post = login.post()
    envelopes = list(_updates(outbox, job, site, post))
    again = []
    for _ in range(TIMES):
        manifests = [e for e in envelopes if e.type == "update"]
        chunks = [e for e in envelopes if e.type == "chunk"]
        again += [*manifests, *rng.sample(chunks, len(chunks))]
    return await _send(login.session(post), again)


def _updates(outbox: Path, job: str, site: str, post: Post) -> Iterator[Envelope]:
    for record in sorted(outbox.glob("[0-9]*.json")):
        yield from _update(record, job, site, post)


def _update(record: Path, job: str, site: str, post: Post) -> Iterator[Envelope]:
    """The messages of one entry of an outbox; nothing when it goes while it is being read: its receipt has come."""
    try:
        entry: dict[str, Any] = json.loads(record.read_text())
        body = record.with_suffix(".frames").read_bytes()
    except (OSError, ValueError):
        return
    lengths: list[int] = entry["frame_bytes"]
    if sum(lengths) != len(body):
        return
    manifest = from_text(json.dumps(entry["manifest"]))
    seal = post.update_seal(manifest, bytes.fromhex(entry["key"]))
    yield post.from_trainer(manifest, site=site)
    offset = 0
    for index, length in enumerate(lengths):
        frame = body[offset : offset + length]
        offset += length
        chunk = m.Chunk(
            job=job, transfer=entry["update_id"], part="update", index=index, count=len(lengths), body=frame
        )
        yield post.from_trainer(chunk, site=site, seal=seal)


async def repeat_versions(login: Login, job: str, stream: str, *, rng: random.Random) -> int:
    """Publish the newest records of the model log `stream` again, shuffled; returns how many."""
    async with login.session() as session, asyncio.timeout(LIMIT_S):
        records = await _newest(session, job, stream)
        await _publish(Publisher(session), rng.sample(records, len(records)))
        return len(records)


async def _newest(session: Session, job: str, stream: str) -> list[Envelope]:
    found: list[Envelope] = []
    reader = StreamReader(session, stream)
    newest = await reader.newest(wait=timedelta(seconds=QUIET_S))
    start: Start = "first" if newest is None else max(0, newest.offset - MOST_RECORDS)
    async with aclosing(reader.follow(start)) as records:
        while len(found) < MOST_RECORDS:
            try:
                async with asyncio.timeout(QUIET_S):
                    record = (await anext(records)).envelope
            except TimeoutError:
                break
            found.append(replace(record, exchange=MODELS, routing_key=models_key(job), headers=_own(record.headers)))
    return found


def _own(headers: Headers) -> Headers:
    """Headers without those that the broker adds."""
    return {name: value for name, value in headers.items() if not name.startswith("x-")}


async def repeat_receipts(login: Login, receipts: Iterable[m.Receipt], *, rng: random.Random) -> int:
    """Tell sites again what became of their updates, twice and shuffled, and call the roll; returns the messages."""
    post = login.post()
    told = [post.control(receipt, site=m.UpdateId.parse(receipt.update_id).site) for receipt in receipts] * TIMES
    told.append(post.control(m.RollCall(session="mischief"), site=None))
    return await _send(login.session(post), rng.sample(told, len(told)))


async def _send(opening: Session, envelopes: Sequence[Envelope]) -> int:
    async with opening as session, asyncio.timeout(LIMIT_S):
        await _publish(Publisher(session), envelopes)
    return len(envelopes)


async def _publish(publisher: Publisher, envelopes: Iterable[Envelope]) -> None:
    for envelope in envelopes:
        await publisher.publish(envelope, mandatory=False)
