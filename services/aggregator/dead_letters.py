"""Messages that break the protocol, kept in `fedbus.dead` where people can look at them, with the reason in a header.

They have a lane of their own: what a broken or hostile site sends must not stand before receipts and events, nor fill
the memory. What waits is bounded in bytes, so a flood is slowed down to what the broker takes. When the broker takes
nothing for PATIENCE (an alarm), the body is given up and only the log line stays: keeping what is broken must not keep
the aggregator from what is good. Of a long body the first KEPT_BYTES are kept. A sender is named in the log once a
second, with the number of its messages.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import structlog

from fedbus.bus.consumer import Delivery
from fedbus.bus.envelope import Envelope
from fedbus.bus.publisher import Publisher
from fedbus.bus.topology import DEAD, dead_key
from fedbus.errors import PublishError

ROOM_BYTES = 16 << 20
MESSAGE_BYTES = 1 << 10  # what a message costs beside its body
AT_ONCE = 8
PATIENCE = timedelta(seconds=5)
LOG_S = 1.0
REASON_BYTES = 500
KEPT_BYTES = 1 << 20

log = structlog.get_logger()


class DeadLetters:
    """Run `run` as a task."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        patience: timedelta = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publisher = publisher
        self._patience_s = patience.total_seconds()
        self._clock = clock
        self._waiting: asyncio.Queue[Envelope] = asyncio.Queue()
        self._waiting_bytes = 0
        self._left = asyncio.Condition()
        self._stuck = False
        self._told_at: dict[str, float] = {}
        self._untold: Counter[str] = Counter()
        self._let_go: Counter[str] = Counter()

    async def run(self) -> None:
        """Publish what waits, a few at a time, for ever."""
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self._publish(), name=f"dead letters {number}")

    async def drained(self) -> None:
        """Wait until everything was published."""
        await self._waiting.join()

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Keep a message; waits while too many wait."""
        envelope = delivery.envelope
        size = _size(envelope)
        try:
            async with asyncio.timeout(0 if self._stuck else self._patience_s), self._left:
                await self._left.wait_for(lambda: not self._waiting_bytes or self._waiting_bytes + size <= ROOM_BYTES)
        except TimeoutError:
            self._stuck = True
            self._log(envelope, reason, kept=False)
            return
        self._log(envelope, reason, kept=True)
        self._waiting_bytes += size
        self._waiting.put_nowait(_dead(envelope, reason))

    async def _publish(self) -> None:
        while True:
            envelope = await self._waiting.get()
            try:
                await self._publisher.publish(envelope, mandatory=False)
            except PublishError as exc:
                log.error("unsaid", type=envelope.type, key=envelope.routing_key, error=str(exc))
            self._stuck = False
            self._waiting_bytes -= _size(envelope)
            self._waiting.task_done()
            async with self._left:
                self._left.notify_all()

    def _log(self, envelope: Envelope, reason: str, *, kept: bool) -> None:
        sender, now = envelope.user_id or "", self._clock()
        self._untold[sender] += 1
        self._let_go[sender] += not kept
        told_at = self._told_at.get(sender)
        if told_at is None or now - told_at >= LOG_S:
            self._told_at[sender] = now
            log.warning(
                "dead-letter",
                exchange=envelope.exchange,
                sender=sender,
                reason=reason,
                messages=self._untold.pop(sender),
                let_go=self._let_go.pop(sender),
            )


def _size(envelope: Envelope) -> int:
    return min(len(envelope.body), KEPT_BYTES) + MESSAGE_BYTES


def _dead(envelope: Envelope, reason: str) -> Envelope:
    return Envelope(
        exchange=DEAD,
        routing_key=dead_key(envelope.exchange),
        type=envelope.type,
        body=envelope.body[:KEPT_BYTES],
        message_id=envelope.message_id or "none",
        content_type=envelope.content_type,
        headers={
            "reason": reason[:REASON_BYTES],
            "sender": envelope.user_id or "",
            "origin": f"{envelope.exchange}/{envelope.routing_key}",
        },
    )
