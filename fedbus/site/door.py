"""The one way out of a site: nothing else here can publish. Each message and each chunk passes, in this order,

policy    the site's own, as it stands now: an update leaves in the lane of a job that it has accepted, once it is
          admitted, within the site's hours, and no other way; of an answer what the policy lets leave
audit     a line that says what leaves, durable before it does: one an update, one a message, or one an hour of those
          that leave often. While that line cannot be written nothing leaves
seal      with a kit: updates and answers to the aggregator's key, everything signed, by the post
publish   confirmed, however long the link is down; before every attempt the policy is asked again

    always                          Join, SiteStatus, Leave
    unless nothing is allowed here  OfferAnswer, ResyncRequest, TrainerTrouble
    by the policy, now or never     ScoreAnswer, StatisticsAnswer
    by the policy, when it opens    chunks and manifests of updates
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from fedbus.audit.writer import Audit
from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post, SiteMessage
from fedbus.bus.publisher import Publisher
from fedbus.core.job.hospital import score_left, statistics_left, without_metrics
from fedbus.core.protocol import messages as m
from fedbus.errors import StoreError, WithheldError
from fedbus.site.message_lines import TO, MessageLines
from fedbus.site.rules import SiteRules
from fedbus.site.terms import Terms
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import NOTHING
from fedbus.store.outbox import Entry

if TYPE_CHECKING:
    from fedbus.trust.sealed_updates import UpdateSeal


log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The chunks of an update as they leave: how many, their bytes, SHA-256 over them in their order."""

    chunks: int
    size_bytes: int
    sha256: str


def load_of(entry: Entry, seal: UpdateSeal | None) -> Load:
    """What leaves of an update: the same bytes however often it is sent. Reads all of it; StoreError."""
    digest, size_bytes, count = hashlib.sha256(), 0, len(entry.frame_bytes)
    for index, frame in enumerate(entry.frames()):
        body = frame if seal is None else seal.chunks.seal(frame, index, count)
        digest.update(body)
        size_bytes += len(body)
    return Load(chunks=count, size_bytes=size_bytes, sha256=digest.hexdigest())


class Lane:
    """The way out for the updates of one job that this site has accepted; `terms` are those that hold now."""

    def __init__(
        self,
        job: str,
        *,
        site: str,
        post: Post,
        publisher: Publisher,
        audit: Audit,
        terms: Callable[[], Terms],
        rules: SiteRules | None = None,
    ) -> None:
        self._job = job
        self._site = site
        self._post = post
        self._publisher = publisher
        self._audit = audit
        self._terms = terms
        self._rules = rules
        self._heads: dict[str, str] = {}

    async def admit(self, manifest: m.UpdateManifest, load: Load) -> None:
        """Return when all of this update may leave and its line is durable: before that, none of its chunks leaves.

        Raises WithheldError when it never may, StoreError.
        """
        self._check(manifest)
        if self._rules is not None:
            try:
                await self._rules.admit(manifest)
            except WithheldError as exc:
                self._audit.note(Kind.WITHHELD, job=self._job, update=manifest.update_id, reason=exc.said)
                raise
        head = await self._audit.write(
            Kind.UPDATE_LEAVES,
            job=self._job,
            update=manifest.update_id,
            update_kind=str(manifest.kind),
            base_version=manifest.base_version,
            to=TO,
            bytes=load.size_bytes,
            chunks=load.chunks,
            sha256=load.sha256,
            metrics=len(self._allowed(manifest).effort.metrics),
            **self._terms().facts,
        )
        self._heads[manifest.update_id] = "" if head == NOTHING else str(head)

    async def send_chunks(self, chunks: Iterable[m.Chunk], *, seal: UpdateSeal | None) -> int:
        """Return their bytes when all are confirmed; `chunks` is advanced as there is room. Raises PublishError."""
        return await self._publisher.publish_many(self._passed(chunk, chunk.transfer, seal) for chunk in chunks)

    def seal(self, manifest: m.UpdateManifest, key: bytes) -> UpdateSeal | None:
        """What `send_chunks` seals this update with; None without a kit."""
        return self._post.update_seal(manifest, key)

    async def send(self, manifest: m.UpdateManifest) -> None:
        """Commit an update whose chunks were confirmed. Raises PublishError."""
        said = replace(self._allowed(manifest), audit=self._heads.get(manifest.update_id, ""))
        await self._publisher.publish(self._passed(said, manifest.update_id))
        del self._heads[manifest.update_id]

    def _allowed(self, manifest: m.UpdateManifest) -> m.UpdateManifest:
        out = None if self._rules is None else self._rules.out
        return manifest if out is None else without_metrics(out, manifest)

    def _passed(self, message: m.Chunk | m.UpdateManifest, update_id: str, seal: UpdateSeal | None = None) -> Envelope:
        self._check(message)
        if update_id not in self._heads:
            raise ValueError(f"update {update_id} was not admitted, or leaves without a line in the audit log")
        return self._post.from_trainer(message, site=self._site, seal=seal)

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
        rules: SiteRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site = site
        self._post = post
        self._rules = rules if rules is not None and rules.are_written else None
        self._bulk = bulk
        self._audit = audit
        self._lines = MessageLines(audit, clock)
        self._control = Publisher(control)
        self._words = Publisher(control, gate=self._words_leave)
        self._answers = Publisher(control, gate=self._answers_leave)

    async def say(self, message: SiteMessage) -> None:
        """Return when the broker has it, or when it is withheld. Raises PublishError."""
        try:
            match message:
                case m.ScoreAnswer() | m.StatisticsAnswer() if self._rules is not None:
                    await self._say_within(self._rules, message)
                case m.OfferAnswer() | m.ResyncRequest() | m.TrainerTrouble() if self._rules is not None:
                    await self._words_leave()
                    await self._publish(self._words, message)
                case _:
                    await self._publish(self._control, message)
        except WithheldError as exc:
            name, job = type(message).__name__, getattr(message, "job", None)
            log.warning("withheld", type=name, job=job, text=exc.said)
            self._audit.note(Kind.WITHHELD, message=name, job=job, reason=exc.said)

    def lane(self, job: str, terms: Callable[[], Terms]) -> Lane:
        """For the updates of a job that was accepted. They wait for their route however long it is away."""
        rules = self._rules
        gate = None if rules is None else partial(rules.opening, job)
        publisher = Publisher(self._bulk, routes_return=timedelta.max, gate=gate)
        return Lane(
            job, site=self._site, post=self._post, publisher=publisher, audit=self._audit, terms=terms, rules=rules
        )

    def close(self) -> None:
        """Nothing is said any more."""
        self._lines.close()

    async def _say_within(self, rules: SiteRules, message: m.ScoreAnswer | m.StatisticsAnswer) -> None:
        if refusal := rules.refusal(message.job):
            raise WithheldError(refusal)
        await self._answers_leave()
        if (out := rules.out) is not None:
            message = score_left(out, message) if isinstance(message, m.ScoreAnswer) else statistics_left(out, message)
        await self._publish(self._answers, message)

    async def _publish(self, publisher: Publisher, message: SiteMessage) -> None:
        envelope = self._post.from_site(message)
        size = len(envelope.body)
        if self._rules is not None and publisher is not self._control:
            if publisher is self._answers and not self._rules.has_room(size):
                raise WithheldError("the bytes of the day are used up")
            self._charge(self._rules, size)
        await self._lines.leaves(str(envelope.type), size, _said(message))
        await publisher.publish(envelope)

    def _charge(self, rules: SiteRules, size: int) -> None:
        try:
            rules.charge_bytes(size)
        except StoreError as exc:
            log.error("day-counts", error=str(exc))
            raise WithheldError("what leaves cannot be counted: the state folder cannot be written") from exc

    async def _words_leave(self) -> None:
        if self._rules is not None and (shut := self._rules.shut) is not None:
            raise WithheldError(shut)

    async def _answers_leave(self) -> None:
        if self._rules is not None and (pause := self._rules.pause) is not None:
            raise WithheldError(pause)


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
