"""The one way out of a site: nothing else here can publish. Each message and each chunk passes, in this order,

policy    the site's own: an update leaves in the lane of a job that it has accepted, and no other way
audit     a line that says what leaves, durable before it does: one an update, one a message, of status one an hour.
          While that line cannot be written nothing leaves
seal      end to end, by the post
publish   confirmed, however long the link is down
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from fedbus.audit.writer import Audit
from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post, SiteMessage
from fedbus.bus.publisher import Publisher
from fedbus.core.protocol import messages as m
from fedbus.site.terms import Terms
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import NOTHING

STATUS_LINE_S = 3600.0
TO = "aggregator"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The frames of an update as they leave: how many, their bytes, SHA-256 over them in their order."""

    frames: int
    size_bytes: int
    sha256: str


class Lane:
    """The way out for the updates of one job that this site has accepted, under these terms."""

    def __init__(self, job: str, *, site: str, post: Post, publisher: Publisher, audit: Audit, terms: Terms) -> None:
        self._job = job
        self._site = site
        self._post = post
        self._publisher = publisher
        self._audit = audit
        self._terms = terms
        self._heads: dict[str, str] = {}

    async def begin(self, manifest: m.UpdateManifest, load: Load) -> None:
        """Say that an update leaves: before that, none of its chunks does."""
        self._check(manifest)
        head = await self._audit.write(
            Kind.UPDATE_LEAVES,
            job=self._job,
            update=manifest.update_id,
            update_kind=str(manifest.kind),
            base_version=manifest.base_version,
            to=TO,
            bytes=load.size_bytes,
            chunks=load.frames,
            sha256=load.sha256,
            metrics=len(manifest.effort.metrics),
            **self._terms.facts,
        )
        self._heads[manifest.update_id] = "" if head == NOTHING else str(head)

    async def send_chunks(self, chunks: Iterable[m.Chunk]) -> int:
        """Return their bytes when all are confirmed; `chunks` is advanced as there is room. Raises PublishError."""
        return await self._publisher.publish_many(map(self._passed, chunks))

    async def send(self, manifest: m.UpdateManifest) -> None:
        """Commit an update whose chunks were confirmed. Raises PublishError."""
        await self._publisher.publish(self._passed(manifest))
        del self._heads[manifest.update_id]

    def _passed(self, message: m.Chunk | m.UpdateManifest) -> Envelope:
        self._check(message)
        update_id = message.transfer if isinstance(message, m.Chunk) else message.update_id
        head = self._heads.get(update_id)
        if head is None:
            raise ValueError(f"update {update_id} leaves without a line in the audit log")
        if isinstance(message, m.UpdateManifest):
            message = replace(message, audit=head)
        return self._post.from_trainer(message, site=self._site)

    def _check(self, message: m.Chunk | m.UpdateManifest) -> None:
        if message.job != self._job:
            raise ValueError(f"expected what belongs to job {self._job}, got something of job {message.job}")


class Door:
    """Of one site daemon: `control` carries everything small, `bulk` the updates."""

    def __init__(
        self,
        site: str,
        *,
        post: Post,
        control: Session,
        bulk: Session,
        audit: Audit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._post = post
        self._control = Publisher(control)
        self._bulk = bulk
        self._audit = audit
        self._status = _StatusLines(audit, clock)

    async def say(self, message: SiteMessage) -> None:
        """Return when the broker has it. Raises PublishError."""
        envelope = self._post.from_site(message)
        if isinstance(message, m.SiteStatus):
            await self._status.leaves(len(envelope.body))
        else:
            await self._audit.write(
                Kind.MESSAGE_LEAVES, message=envelope.type, to=TO, bytes=len(envelope.body), **_said(message)
            )
        await self._control.publish(envelope)

    def lane(self, job: str, terms: Terms) -> Lane:
        """For the updates of a job that was accepted. They wait for their route however long it is away."""
        publisher = Publisher(self._bulk, routes_return=timedelta.max)
        return Lane(job, site=self._site, post=self._post, publisher=publisher, audit=self._audit, terms=terms)

    def close(self) -> None:
        """Nothing is said any more."""
        self._status.close()


class _StatusLines:
    """A line before the first status message of an hour; each says how many have left since the one before."""

    def __init__(self, audit: Audit, clock: Callable[[], float]) -> None:
        self._audit = audit
        self._clock = clock
        self._messages = self._size_bytes = 0
        self._until: float | None = None

    async def leaves(self, size_bytes: int) -> None:
        if self._until is None or self._clock() >= self._until:
            facts = self._taken()
            await self._audit.write(Kind.STATUS_LEAVES, **facts)
            self._until = self._clock() + STATUS_LINE_S
        self._messages += 1
        self._size_bytes += size_bytes

    def close(self) -> None:
        if self._until is not None:
            self._audit.note(Kind.STATUS_LEAVES, **self._taken())

    def _taken(self) -> dict[str, object]:
        facts = {"to": TO, "messages": self._messages, "bytes": self._size_bytes}
        self._messages = self._size_bytes = 0
        return facts


def _said(message: SiteMessage) -> dict[str, object]:
    """What a line says of a message beside its size: ids and counts, none of its words."""
    job: dict[str, object] = {} if isinstance(message, m.Join | m.SiteStatus | m.Leave) else {"job": message.job}
    match message:
        case m.OfferAnswer(accepted=accepted):
            return job | {"accepted": accepted}
        case m.ScoreAnswer():
            return job | {"version": message.version, "metrics": len(message.metrics)}
        case m.StatisticsAnswer(statistics=statistics):
            return job | {"statistics": statistics is not None}
    return job
