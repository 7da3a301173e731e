"""What a site holds of a job's global model: the model log → files, from where an earlier process left off.

Each version that is whole wakes the training loop. What the log lacks is asked for, what is no record of it is passed
over, and a full disk is waited out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import structlog

from fedbus.bus import topology as t
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.stream import Record, Start, StreamReader
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.errors import DecodeError, DiskFullError, LoginError, NoSuchQueueError, ProtocolError
from fedbus.runtime.faults import Point, Reached
from fedbus.runtime.metrics import TAKEN_BYTES
from fedbus.runtime.telemetry import Telemetry
from fedbus.runtime.tracing import HEADER, RECEIVE_VERSION
from fedbus.site.job import model_wanted
from fedbus.site.job.log_place import before_snapshot
from fedbus.site.job.model_files import ModelFiles, Step
from fedbus.site.job.model_log import ModelLog, SealedLog
from fedbus.site.job.model_wanted import ModelWanted
from fedbus.training.sayable import Sayable

NO_ROOM_PAUSE_S = 2.0

log = structlog.get_logger()


class ModelFollower:
    """Of one job of `site`: `reader` reads the stream of a name, `folder` has the keys, `files` the versions.

    ask: sends a request for a snapshot, with its reason. on_receipt: is given those receipts in the log that are for
    this site. on_lost: versions are lost, and the receipts they named. on_change: a version may have come.
    """

    def __init__(
        self,
        job: str,
        site: str,
        *,
        reader: Callable[[str], StreamReader],
        post: Post,
        folder: Path,
        files: ModelFiles,
        ask: Callable[[Sayable], Awaitable[None]],
        on_receipt: Callable[[m.Receipt], Awaitable[None]],
        on_lost: Callable[[], None],
        on_change: Callable[[], Awaitable[None]],
        telemetry: Telemetry,
        reached: Reached,
        patience: timedelta = model_wanted.FIRST,
    ) -> None:
        self._job = job
        self._site = site
        self._reader_of = reader
        self._post = post
        self._files = files
        self._ask = ask
        self._on_receipt = on_receipt
        self._on_lost = on_lost
        self._on_change = on_change
        self._telemetry = telemetry
        self._reached = reached
        self._log = _log_of(job, post, folder=folder, ask=ask)
        self._stream = ""
        self._wanted = ModelWanted(job, holds=lambda: files.held is not None, ask=ask, first=patience)
        self._started: asyncio.Future[StreamReader] = asyncio.get_running_loop().create_future()

    @property
    def trouble(self) -> Sayable | None:
        """What people should know while no version is held; None while there is nothing."""
        return self._wanted.says

    def begin(self, started: m.JobStarted) -> bool:
        """Follow the model log that is named; "" is how earlier releases say the one of the job's name.

        With a kit every log is named, for the broker lets nobody read another: a job that names none, such as a check
        of data, has none. False: another one is followed already, and all that came from it is of no use. Raises
        ProtocolError.
        """
        if not started.log and self._post.guard is not None:
            return True
        stream = started.log or t.models_stream(self._job)
        if not t.is_models_stream(stream, self._job):
            raise ProtocolError(f"the job's start names {stream!r}, which is no model log of job {self._job}")
        if self._stream not in ("", stream):
            return False
        self._stream = stream
        self._log.take_keys(started.keys)
        if not self._started.done():
            self._files.show_from(started.version)
            self._started.set_result(self._reader_of(stream))
        return True

    async def run(self) -> None:
        """Follow until the log is gone. Raises ProtocolError when the site may not read it."""
        reader = await self._started
        try:
            async for record in reader.follow(await self._where_to_begin(reader)):
                try:
                    message = await self._log.read(record.envelope)
                    if message is not None:
                        self._note(message, record.envelope)
                        await self._when_there_is_room(message, record.offset)
                except ProtocolError as exc:
                    log.warning("model-log-record", job=self._job, offset=record.offset, error=str(exc))
        except NoSuchQueueError:
            log.info("model-log-gone", job=self._job, text="the job has ended; waiting to be told how")
        except LoginError as exc:  # that of this job's log alone
            raise ProtocolError(f"the broker lets this site not read the model log of job {self._job}: {exc}") from exc

    async def watch(self) -> None:
        """Ask for a snapshot whenever it is time, for ever."""
        await self._started
        await self._wanted.watch()

    async def _where_to_begin(self, reader: StreamReader) -> Start:
        """After what an earlier process held, or before the newest snapshot: whichever is later in the log.

        What comes after the later one is a part of what comes after the other, so that is what costs fewer bytes.
        """
        newest = await reader.newest()
        manifest = None if newest is None else await self._manifest(newest)
        if newest is None or not isinstance(manifest, m.VersionManifest) or manifest.snapshot_version < 0:
            self._files.forget()
            return "first"
        kept = self._files.kept
        if (
            kept is not None
            and kept.log in ("", self._stream)
            and kept.offset <= newest.offset
            and manifest.snapshot_version <= kept.held.version <= manifest.version
        ):
            log.info("model-resumed", job=self._job, version=kept.held.version, newest=manifest.version)
            self._files.resume(kept, newest=manifest.version)
            await self._on_change()
            return kept.offset + 1
        self._files.forget()
        self._files.skip_below(manifest.snapshot_version)
        return await before_snapshot(reader, manifest, post=self._post, offset=newest.offset)

    async def _manifest(self, newest: Record) -> wire.Message | None:
        try:
            return await self._log.read(newest.envelope)
        except ProtocolError as exc:
            log.warning("model-log-record", job=self._job, offset=newest.offset, error=str(exc))
            return None

    def _note(self, message: wire.Message, envelope: Envelope) -> None:
        match message:
            case m.Chunk(body=body):
                self._telemetry.metrics.add(TAKEN_BYTES, len(body), job_id=self._job)
            case m.VersionManifest(version=version) if self._telemetry.tracing.on:
                came = str(envelope.headers.get(HEADER, ""))
                self._telemetry.tracing.begin(RECEIVE_VERSION, f"{self._job}/{version}", came=came).end()

    async def _when_there_is_room(self, message: wire.Message, offset: int) -> None:
        """A full disk is waited out: the record is not acknowledged meanwhile."""
        while True:
            try:
                return await self._take(message, offset)
            except DiskFullError as exc:
                log.error("disk-full", job=self._job, error=str(exc), retry_s=NO_ROOM_PAUSE_S)
                await asyncio.sleep(NO_ROOM_PAUSE_S)

    async def _take(self, message: wire.Message, offset: int) -> None:
        self._wanted.record_came()
        match message:
            case m.Chunk():
                self._files.chunk(message)
                self._reached(Point.SITE_VERSION)
            case m.VersionManifest():
                before = self._files.held
                step = self._files.manifest(message)
                if step is Step.NEW_VERSION:
                    self._files.remember(offset, log=self._stream)
                    log.info("version-held", job=self._job, version=message.version)
                elif step is Step.GAP:
                    reason = Sayable(self._files.why or f"version {message.version} does not follow what is held")
                    log.warning("resync", job=self._job, reason=reason)
                    await self._ask(reason)
                for receipt in message.receipts:
                    if receipt.update_id.partition(":")[0] == self._site:
                        await self._on_receipt(receipt)
                if step is Step.NEW_VERSION and before is not None and message.version > before.version + 1:
                    self._on_lost()  # the versions in between are lost, and the receipts they named
                await self._on_change()
            case _:
                raise DecodeError(f"message {type(message).__name__} does not belong in a model log")


def _log_of(job: str, post: Post, *, folder: Path, ask: Callable[[Sayable], Awaitable[None]]) -> ModelLog:
    return ModelLog(job, post) if post.guard is None else SealedLog(job, post, post.guard, folder=folder, ask=ask)
