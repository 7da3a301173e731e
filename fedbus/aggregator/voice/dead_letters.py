"""Messages that break the protocol, kept in `fedbus.dead` where people can look at them, with the reason in a header.

They have a lane and a connection of their own: what a broken or hostile site sends must not stand before receipts and
events, nor fill the memory. Nobody waits for this lane, for whoever waited would let all that came behind wait too: of
a sender whose messages wait already in too many bytes, and of all when the broker takes none (an alarm), the rest is
let go and only counted. Of a long body the first KEPT_BYTES are kept. A sender is named in the log once a second, with
how many it sent and how many were let go.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import structlog

from fedbus.audit.writer import Audit, NoAudit
from fedbus.bus.consumer import Delivery
from fedbus.bus.envelope import Envelope
from fedbus.bus.publisher import Publisher
from fedbus.bus.topology import DEAD, dead_key
from fedbus.errors import PublishError
from fedbus.runtime.metrics import DEAD_LETTERS, Metrics, NoMetrics
from fedbus.store.audit_kinds import Kind

ROOM_BYTES = 16 << 20
SENDER_BYTES = 4 << 20
MESSAGE_BYTES = 1 << 10  # what a message costs beside its body
AT_ONCE = 8
LOG_S = 1.0
REASON_BYTES = 500
KEPT_BYTES = 1 << 20

log = structlog.get_logger()


class DeadLetters:
    """Run `run` as a task. The publisher's connection carries nothing else."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        audit: Audit | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audit = audit or NoAudit()
        self._metrics = metrics or NoMetrics()
        self._publisher = publisher
        self._clock = clock
        self._waiting: asyncio.Queue[tuple[str, Envelope]] = asyncio.Queue()
        self._waiting_bytes: Counter[str] = Counter()
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

    def refuse(self, delivery: Delivery, reason: str) -> None:
        """Keep a message, or let it go when too many wait."""
        envelope = delivery.envelope
        sender, size = envelope.user_id or "", _size(envelope)
        # of each sender one is kept, whatever the others have waiting
        kept = not self._waiting_bytes[sender] or (
            self._waiting_bytes[sender] + size <= SENDER_BYTES and self._waiting_bytes.total() + size <= ROOM_BYTES
        )
        self._metrics.add(DEAD_LETTERS)
        self._log(envelope, reason, kept=kept)
        if kept:
            self._waiting_bytes[sender] += size
            self._waiting.put_nowait((sender, _dead(envelope, reason)))

    async def _publish(self) -> None:
        while True:
            sender, envelope = await self._waiting.get()
            try:
                await self._publisher.publish(envelope, mandatory=False)
            except PublishError as exc:
                log.error("unsaid", type=envelope.type, key=envelope.routing_key, error=str(exc))
            self._waiting_bytes[sender] -= _size(envelope)
            if not self._waiting_bytes[sender]:
                del self._waiting_bytes[sender]
            self._waiting.task_done()

    def _log(self, envelope: Envelope, reason: str, *, kept: bool) -> None:
        sender, now = envelope.user_id or "", self._clock()
        self._untold[sender] += 1
        self._let_go[sender] += not kept
        told_at = self._told_at.get(sender)
        if told_at is None or now - told_at >= LOG_S:
            self._told_at[sender] = now
            facts = {
                "exchange": envelope.exchange,
                "sender": sender,
                "reason": reason,
                "messages": self._untold.pop(sender),
                "let_go": self._let_go.pop(sender),
            }
            log.warning("dead-letter", **facts)
            self._audit.note(Kind.DEAD_LETTER, **facts)


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
