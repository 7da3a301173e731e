"""The one way out of a site: nothing else here can publish. Each message and each chunk passes, in this order,

policy    the site's own: an update leaves in the lane of a job that it has accepted, and no other way
audit     a line of what leaves: of a message and a chunk at level debug, of a whole update at level info (`worker`)
seal      with a kit: updates and answers to the aggregator's key, everything signed, by the post
publish   confirmed, however long the link is down
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from fedbus.bus.connection import Session
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post, SiteMessage
from fedbus.bus.publisher import Publisher
from fedbus.core.protocol import messages as m

if TYPE_CHECKING:
    from fedbus.trust.sealed_updates import UpdateSeal

log = structlog.get_logger()


class Lane:
    """The way out for the updates of one job that this site has accepted."""

    def __init__(self, job: str, *, site: str, post: Post, publisher: Publisher) -> None:
        self._job = job
        self._site = site
        self._post = post
        self._publisher = publisher

    async def send_chunks(self, chunks: Iterable[m.Chunk], *, seal: UpdateSeal | None) -> int:
        """Return their bytes when all are confirmed; `chunks` is advanced as there is room. Raises PublishError."""
        return await self._publisher.publish_many(self._passed(chunk, seal) for chunk in chunks)

    def seal(self, manifest: m.UpdateManifest, key: bytes) -> UpdateSeal | None:
        """What `send_chunks` seals this update with; None without a kit."""
        return self._post.update_seal(manifest, key)

    async def send(self, manifest: m.UpdateManifest) -> None:
        """Commit an update whose chunks were confirmed. Raises PublishError."""
        await self._publisher.publish(self._passed(manifest))

    def _passed(self, message: m.Chunk | m.UpdateManifest, seal: UpdateSeal | None = None) -> Envelope:
        if message.job != self._job:
            raise ValueError(f"expected what belongs to job {self._job}, got something of job {message.job}")
        _audit(message)
        return self._post.from_trainer(message, site=self._site, seal=seal)


class Door:
    """Of one site daemon: `control` carries everything small, `bulk` the updates."""

    def __init__(self, site: str, *, post: Post, control: Session, bulk: Session) -> None:
        self._site = site
        self._post = post
        self._control = Publisher(control)
        self._bulk = bulk

    async def say(self, message: SiteMessage) -> None:
        """Return when the broker has it. Raises PublishError."""
        _audit(message)
        await self._control.publish(self._post.from_site(message))

    def lane(self, job: str) -> Lane:
        """For the updates of a job that was accepted. They wait for their route however long it is away."""
        return Lane(job, site=self._site, post=self._post, publisher=Publisher(self._bulk, routes_return=timedelta.max))


def _audit(message: SiteMessage | m.Chunk | m.UpdateManifest) -> None:
    body_bytes = len(message.body) if isinstance(message, m.Chunk) else None
    log.debug("leaves", type=type(message).__name__, job=getattr(message, "job", None), body_bytes=body_bytes)
