"""Reading a RabbitMQ stream: the model log of a job, or the events. What a record means is decided above.

A place in a stream is an offset. The broker would also find one by time, but by its own clock, which nobody else has.
Offsets are not contiguous: the broker takes some for itself (one a segment, seen on 3.10 and 4.0), so a computed one is
looked at before it is used. A reader that retention has overtaken loses records without an error, so the layer above
checks versions and digests. Acks are only flow control: each record is acked when the caller asks for the next one. The
broker sends whole stored chunks, so up to `prefetch` records plus one window of the publisher lie in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import structlog

from fedbus.bus.connection import QUICK, Session
from fedbus.bus.consumer import Attachment, Delivery
from fedbus.bus.envelope import Envelope
from fedbus.errors import ConnectionLostError

log = structlog.get_logger("fedbus.bus")

# Where to begin: the oldest record, the newest stored chunk, or an offset (the oldest record when that is gone).
Start = Literal["first", "last"] | int

PREFETCH = 4
MANIFEST_TYPE = "version"
# A writer in the middle of a version pauses less than this between its chunks.
QUIET = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of a stream with its offset, to be stored and given to `follow` as `offset + 1` later."""

    envelope: Envelope
    offset: int


class StreamReader:
    """Reads one stream on a session."""

    def __init__(self, session: Session, stream: str, *, prefetch: int = PREFETCH) -> None:
        self._session = session
        self._stream = stream
        self._prefetch = prefetch

    async def follow(self, start: Start) -> AsyncGenerator[Record, None]:
        """Every record from `start` on, for ever, without loss or repetition over reconnects.

        Raises NoSuchQueueError when the stream is not there or is deleted meanwhile, LoginError when it may not be
        read.
        """
        pauses = QUICK.pauses()
        while True:
            attachment = None
            try:
                attachment = await self._attach(start)
                while True:
                    delivery = Delivery(await attachment.next(), attachment.channel)
                    offset = int(delivery.envelope.headers["x-stream-offset"])
                    if isinstance(start, int) and offset < start:
                        await delivery.ack()
                        continue
                    # Set before the yield: the caller has the record, even if it never comes back for another.
                    start, pauses = offset + 1, QUICK.pauses()
                    yield Record(envelope=delivery.envelope, offset=offset)
                    await delivery.ack()
            except ConnectionLostError as exc:
                log.debug("follow again", stream=self._stream, start=str(start), reason=str(exc))
                await asyncio.sleep(next(pauses))
            finally:
                if attachment is not None:
                    await attachment.close()

    async def newest(self, *, wait: timedelta = QUIET, kind: str = MANIFEST_TYPE) -> Record | None:
        """The newest record of type `kind`, None when the log is empty or has none.

        A manifest is published alone after its chunks were confirmed, so it is normally the last chunk of the stream
        and comes at once. When a version is just being written its manifest follows. When its writer died halfway the
        log is read from the first record. Waits `wait` for silence before it concludes anything.
        """
        last: Record | None = None
        async for record in self._until_quiet("last", wait):
            if record.envelope.type == kind:
                return record
            last = record
        if last is None:
            return None
        newest = None
        async for record in self._until_quiet("first", wait):
            if record.envelope.type == kind:
                newest = record
            if record.offset >= last.offset:
                break
        return newest

    async def back_to(self, is_before: Callable[[Envelope], bool], *, newest: int, records: int) -> Start:
        """Where to begin so that nothing is missed of what follows the newest record that `is_before`.

        Looks `records` before the offset `newest`, then twice as far, and so on; each look costs one stored chunk.
        "first" when the log has no such record, or not any more.
        """
        look = StreamReader(self._session, self._stream, prefetch=1)
        seen = -1
        while (offset := newest - records) > 0:
            async with aclosing(look.follow(offset)) as found:
                record = await anext(found)
            if is_before(record.envelope):
                return record.offset
            if record.offset == seen:  # the oldest one that is there
                break
            seen, records = record.offset, 2 * records
        return "first"

    async def _until_quiet(self, start: Start, quiet: timedelta) -> AsyncGenerator[Record, None]:
        async with aclosing(self.follow(start)) as records:
            while True:
                try:
                    async with asyncio.timeout(quiet.total_seconds()):
                        record = await anext(records)
                except TimeoutError:
                    return
                yield record

    async def _attach(self, start: Start) -> Attachment:
        return await Attachment.open(
            self._session, self._stream, prefetch=self._prefetch, arguments={"x-stream-offset": start}
        )
