"""The one way out of a site: nothing else here can publish. Each message and each chunk passes, in this order,

policy    the site's own, as it stands now: an update leaves in the lane of a job that it has accepted, once it is
          admitted, within the site's hours, and no other way; of an answer what the policy lets leave
audit     a line of what leaves: of a message and a chunk at level debug, of a whole update at level info (`worker`)
seal      with a kit: updates and answers to the aggregator's key, everything signed, by the post
publish   confirmed, however long the link is down; before every attempt the policy is asked again

    always                          Join, SiteStatus, Leave
    unless nothing is allowed here  OfferAnswer, ResyncRequest, TrainerTrouble
    by the policy, now or never     ScoreAnswer, StatisticsAnswer
    by the policy, when it opens    chunks and manifests of updates
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post, SiteMessage
from fedbus.bus.publisher import Publisher
from fedbus.core.job.hospital import score_left, statistics_left, without_metrics
from fedbus.core.protocol import messages as m
from fedbus.errors import StoreError, WithheldError
from fedbus.site.rules import SiteRules

if TYPE_CHECKING:
    from fedbus.trust.sealed_updates import UpdateSeal

log = structlog.get_logger()


class Lane:
    """The way out for the updates of one job that this site has accepted."""

    def __init__(
        self, job: str, *, site: str, post: Post, publisher: Publisher, rules: SiteRules | None = None
    ) -> None:
        self._job = job
        self._site = site
        self._post = post
        self._publisher = publisher
        self._rules = rules
        self._admitted = ""

    async def admit(self, manifest: m.UpdateManifest) -> None:
        """Return when all of this update may leave. Raises WithheldError when it never may, StoreError."""
        if self._rules is not None:
            await self._rules.admit(manifest)
        self._admitted = manifest.update_id

    async def send_chunks(self, chunks: Iterable[m.Chunk], *, seal: UpdateSeal | None) -> int:
        """Return their bytes when all are confirmed; `chunks` is advanced as there is room. Raises PublishError."""
        return await self._publisher.publish_many(self._passed(chunk, seal) for chunk in chunks)

    def seal(self, manifest: m.UpdateManifest, key: bytes) -> UpdateSeal | None:
        """What `send_chunks` seals this update with; None without a kit."""
        return self._post.update_seal(manifest, key)

    async def send(self, manifest: m.UpdateManifest) -> None:
        """Commit an update whose chunks were confirmed. Raises PublishError."""
        out = None if self._rules is None else self._rules.out
        await self._publisher.publish(self._passed(manifest if out is None else without_metrics(out, manifest)))

    def _passed(self, message: m.Chunk | m.UpdateManifest, seal: UpdateSeal | None = None) -> Envelope:
        if message.job != self._job:
            raise ValueError(f"expected what belongs to job {self._job}, got something of job {message.job}")
        update = message.transfer if isinstance(message, m.Chunk) else message.update_id
        if update != self._admitted:
            raise ValueError(f"update {update} was not admitted, {self._admitted or 'none'} was")
        _audit(message)
        return self._post.from_trainer(message, site=self._site, seal=seal)


class Door:
    """Of one site daemon: `control` carries everything small, `bulk` the updates."""

    def __init__(
        self, site: str, *, post: Post, control: Session, bulk: Session, rules: SiteRules | None = None
    ) -> None:
        self._site = site
        self._post = post
        self._rules = rules if rules is not None and rules.are_written else None
        self._bulk = bulk
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
                    await self._publish(self._words, message)
                case _:
                    await self._publish(self._control, message)
        except WithheldError as exc:
            log.warning("withheld", type=type(message).__name__, job=getattr(message, "job", None), text=exc.said)

    def lane(self, job: str) -> Lane:
        """For the updates of a job that was accepted. They wait for their route however long it is away."""
        rules = self._rules
        gate = None if rules is None else partial(rules.opening, job)
        publisher = Publisher(self._bulk, routes_return=timedelta.max, gate=gate)
        return Lane(job, site=self._site, post=self._post, publisher=publisher, rules=rules)

    async def _say_within(self, rules: SiteRules, message: m.ScoreAnswer | m.StatisticsAnswer) -> None:
        if refusal := rules.refusal(message.job):
            raise WithheldError(refusal)
        await self._answers_leave()
        if (out := rules.out) is not None:
            message = score_left(out, message) if isinstance(message, m.ScoreAnswer) else statistics_left(out, message)
        await self._publish(self._answers, message)

    async def _publish(self, publisher: Publisher, message: SiteMessage) -> None:
        envelope = self._post.from_site(message)
        if self._rules is not None and publisher is not self._control:
            size = len(envelope.body)
            if publisher is self._answers and not self._rules.has_room(size):
                raise WithheldError("the bytes of the day are used up")
            self._charge(self._rules, size)
        _audit(message)
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


def _audit(message: SiteMessage | m.Chunk | m.UpdateManifest) -> None:
    body_bytes = len(message.body) if isinstance(message, m.Chunk) else None
    log.debug("leaves", type=type(message).__name__, job=getattr(message, "job", None), body_bytes=body_bytes)
