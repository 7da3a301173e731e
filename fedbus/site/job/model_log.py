"""Reading a job's model log at the site: records are opened with the keys of its epochs, which the job's start brings.

The keys lie in the job's folder, for its owner alone, and go with it. A key may come after the first record that is
sealed with it: that record is waited with, and after a while the site asks, saying why. An epoch before the newest of
those that are here was not for this site: its records are passed over.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path

import structlog

from fedbus.bus.envelope import Envelope
from fedbus.bus.guard import Guard
from fedbus.bus.post import Post
from fedbus.core.protocol import wire
from fedbus.errors import SealError
from fedbus.site.job.model_wanted import LONGEST
from fedbus.store.files import replace_soon
from fedbus.training.sayable import Sayable
from fedbus.trust.epochs import EpochKey, LogKeys, epoch_of, open_keys

KEYS = "epochs.json"
PATIENCE = timedelta(seconds=10)

log = structlog.get_logger()


class ModelLog:
    """Of one job: nothing is sealed in it. `SealedLog` is the one of a site with a kit."""

    def __init__(self, job: str, post: Post) -> None:
        self._job = job
        self._post = post

    def take_keys(self, text: str) -> None:
        """Keys that the job's start has brought. Raises SealError."""
        if text:
            raise SealError(f"the model log of job {self._job} is sealed, and this site has no kit: set FEDBUS_KIT")

    async def read(self, envelope: Envelope) -> wire.Message | None:
        """The message of a record; None when it is not for this site. Raises ProtocolError."""
        return self._post.from_model_log(envelope, None)


class SealedLog(ModelLog):
    """Of one job, at a site with a kit: whatever is not sealed and signed is refused."""

    def __init__(
        self,
        job: str,
        post: Post,
        guard: Guard,
        *,
        folder: Path,
        ask: Callable[[Sayable], Awaitable[None]],
        patience: timedelta = PATIENCE,
    ) -> None:
        super().__init__(job, post)
        self._guard = guard
        self._path = folder / KEYS
        self._ask = ask
        self._patience = patience
        self._came = asyncio.Event()
        self._keys = LogKeys(job, kept_keys(folder))

    def take_keys(self, text: str) -> None:
        """Keep the keys that were sealed to this site."""
        if not text:
            raise SealError(f"the start of job {self._job} brings no keys of its model log")
        subject = self._guard.identity.subject
        keys = open_keys(text, self._guard.seal_keys, federation=subject.federation, job=self._job, site=subject.name)
        if self._keys.add(keys):
            _keep(self._path, self._keys.keys)
            log.info("epoch-keys", job=self._job, epochs=[key.number for key in keys])
        self._came.set()

    async def read(self, envelope: Envelope) -> wire.Message | None:
        """Wait for the key of the record's epoch if it may still come."""
        epoch = epoch_of(envelope.headers)
        if not await self._has(epoch):
            log.debug("model-log-record-passed-over", job=self._job, epoch=epoch)
            return None
        return self._post.from_model_log(envelope, self._keys)

    async def _has(self, epoch: int) -> bool:
        pause = self._patience
        while epoch > self._keys.newest:
            self._came.clear()
            try:
                async with asyncio.timeout(pause.total_seconds()):
                    await self._came.wait()
            except TimeoutError:
                reason = Sayable(f"the key of epoch {epoch} of the model log is not here")
                log.warning("resync", job=self._job, reason=reason)
                await self._ask(reason)
                pause = min(2 * pause, LONGEST)
        return epoch in self._keys


def _keep(path: Path, keys: Iterable[EpochKey]) -> None:
    with replace_soon(path) as beside:
        beside.touch(mode=0o600)
        beside.write_text(json.dumps([[key.number, base64.b64encode(key.key).decode()] for key in keys]))


def kept_keys(folder: Path) -> list[EpochKey]:
    """The keys in a job's folder. A damaged file is as none: the job's start brings the keys again."""
    try:
        rows = json.loads((folder / KEYS).read_text())
        return [EpochKey(number=int(number), key=base64.b64decode(key, validate=True)) for number, key in rows]
    except (OSError, ValueError, TypeError):
        return []
