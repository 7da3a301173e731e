"""The spool: bodies of updates on the aggregator's disk between ack and checkpoint, one file an update.

    STATE_DIR/spool/<job>/      until two checkpoints cover the update, or until the job is over
    STATE_DIR/archive/<job>/    after that, with `keep_updates`: folded updates for ever, and their start

Chunks are appended in the order they arrive; the ledger knows where each lies. A batch is synced once, then recorded,
then acknowledged to the broker, so that whatever was acknowledged can be read again after a crash. Bytes after the
last recorded chunk (a crash between append and record) are overwritten by no one and read by no one: the chunk comes
again and is appended once more. An append that fails leaves its files as they were.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from fedbus.core.protocol.messages import Chunk, UpdateId
from fedbus.errors import StoreError
from fedbus.store.files import disk_errors, make_folder, opened_folder, replace_durably, sync_folder, sync_together
from fedbus.store.rows import ChunkRow


class Bodies:
    """Reads bodies, from the spool `folder` or from the archive beside it; writes nothing, needs no folder to be there.

    May read beside a running aggregator: a body that is moved to the archive meanwhile is found there, and one that is
    open stays readable whatever becomes of its name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive = folder.with_name("archive")

    def path(self, job: str, update_id: str) -> Path:
        """Where the frames of an update are spooled; ':' is kept out of file names."""
        return self._folder / job / _file_name(update_id)

    def archive(self, job: str) -> Path:
        """Where the job's bodies lie after that, when they are kept."""
        return self._archive / job

    def found(self, job: str, update_id: str) -> Path | None:
        """Where the frames of an update lie now; None when they are gone."""
        places = (self.path(job, update_id), self.archive(job) / _file_name(update_id))
        return next((path for path in places if path.exists()), None)

    def frames(self, job: str, update_id: str, places: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
        """Read frames back, one at a time, from `(index, offset, length)` rows of the ledger."""
        path = self.path(job, update_id)
        with disk_errors("cannot read spooled update", path), self._open(path) as file:
            for _, offset, length in places:
                file.seek(offset)
                yield file.read(length)

    def _open(self, path: Path) -> BinaryIO:
        try:
            return path.open("rb")
        except FileNotFoundError:
            with suppress(FileNotFoundError):
                return (self.archive(path.parent.name) / path.name).open("rb")
            raise


class Spool(Bodies):
    """Files under `folder/<job>/`. One thread appends; another may read and remove updates that are complete.

    keep_updates: what `put_away` takes out of the spool goes to the archive instead of being deleted. The archive must
    lie on the same file system. sync: makes what was appended through open files, and their folders, durable.
    """

    def __init__(
        self, folder: Path, *, keep_updates: bool = False, sync: Callable[[Sequence[int]], None] = sync_together
    ) -> None:
        super().__init__(make_folder(folder))
        self._keep = keep_updates
        self._sync = sync

    def append(self, chunks: Iterable[Chunk]) -> list[ChunkRow]:
        """Append chunks to their files, sync all of them and their folders once, and say where every chunk lies."""
        by_update: dict[tuple[str, str], list[Chunk]] = {}
        for chunk in chunks:
            by_update.setdefault((chunk.job, chunk.transfer), []).append(chunk)
        rows: list[ChunkRow] = []
        sizes: dict[Path, int] = {}
        try:
            with ExitStack() as stack, disk_errors("cannot spool in", self._folder):
                fds, folders = [], set()
                for (job, update_id), group in by_update.items():
                    path = self.path(job, update_id)
                    with disk_errors("cannot spool", path):
                        if not path.exists():
                            folders.add(self._folder_of(job))
                        sizes[path] = path.stat().st_size if path.exists() else 0
                        file = stack.enter_context(path.open("ab", buffering=0))
                        fds.append(file.fileno())
                        rows += _append_one(file, job, update_id, group)
                self._sync(fds + [stack.enter_context(opened_folder(folder)) for folder in folders])
        except StoreError:
            # the caller tries again until there is room: what was written must not fill the disk meanwhile
            for path, size in sizes.items():
                with suppress(OSError):
                    os.truncate(path, size)
            raise
        return rows

    def _folder_of(self, job: str) -> Path:
        folder = self.folder(job)
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            sync_folder(self._folder)
        return folder

    def remove(self, job: str, update_ids: Iterable[str]) -> None:
        """Drop the bodies of these updates."""
        for update_id in update_ids:
            self.path(job, update_id).unlink(missing_ok=True)

    def remove_unknown(self, job: str, known: Collection[str]) -> None:
        """Drop bodies of updates that the ledger does not know: a kill came right after it forgot them."""
        names = {_file_name(update_id) for update_id in known}
        for path in (self._folder / job).glob("*.frames"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def put_away(self, job: str, update_ids: Iterable[str]) -> list[str]:
        """Move the bodies of these folded updates to the archive, or drop them; returns those that are then gone.

        What an earlier run archived stays, whatever this one is told to do.
        """
        archive = self.archive(job)
        if self._keep and not archive.exists():
            make_folder(archive)
            sync_folder(self._archive)
        gone = []
        for update_id in update_ids:
            path = self.path(job, update_id)
            kept = archive / path.name
            with disk_errors("cannot archive update", path):
                if self._keep:
                    with suppress(FileNotFoundError):
                        path.rename(kept)
                else:
                    path.unlink(missing_ok=True)
            if not kept.exists():
                gone.append(update_id)
        if self._keep:
            sync_folder(archive)
        return gone

    def keep_start(self, job: str, checkpoint: Path) -> None:
        """Keep a checkpoint with the updates after it, when those are kept and none before it is."""
        if not self._keep or any(path.name != checkpoint.name for path in self.archive(job).glob("v*.safetensors")):
            return
        with replace_durably(make_folder(self.archive(job)) / checkpoint.name) as beside:
            try:
                beside.hardlink_to(checkpoint)
            except OSError:  # not every file system has links
                shutil.copyfile(checkpoint, beside)

    def folder(self, job: str) -> Path:
        """Where the bodies of a job lie that are needed to go on."""
        return self._folder / job

    def holds(self, job: str) -> bool:
        """Whether bodies of this job were ever spooled here and not dropped with the job."""
        return self.folder(job).is_dir()

    def remove_job(self, job: str) -> None:
        """Drop all bodies of a job that has ended."""
        shutil.rmtree(self._folder / job, ignore_errors=True)


def _file_name(update_id: str) -> str:
    return f"{update_id.replace(':', '.')}.frames"


def _append_one(file: FileIO, job: str, update_id: str, chunks: Iterable[Chunk]) -> Iterator[ChunkRow]:
    """Write chunks behind what is there, and say where each lies."""
    site = UpdateId.parse(update_id).site
    offset = file.seek(0, os.SEEK_END)
    for chunk in chunks:
        length = len(chunk.body)
        _write_all(file.fileno(), chunk.body)
        yield ChunkRow(update_id=update_id, job=job, site=site, index=chunk.index, offset=offset, length=length)
        offset += length


def _write_all(fd: int, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
