"""The spool: bodies of updates on the aggregator's disk between ack and checkpoint, one file an update.

Chunks are appended in the order they arrive; the ledger knows where each lies. A batch is synced once, then recorded,
then acknowledged to the broker, so that whatever was acknowledged can be read again after a crash. Bytes after the
last recorded chunk (a crash between append and record) are overwritten by no one and read by no one: the chunk comes
again and is appended once more. An append that fails leaves its files as they were.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from fedbus.core.messages import Chunk, UpdateId
from fedbus.errors import StoreError
from fedbus.store.files import disk_errors, make_folder, sync_folder
from fedbus.store.ledger import ChunkRow


class Spool:
    """Files under `folder/<job>/`. One thread appends; another may read and remove updates that are complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = make_folder(folder)

    def path(self, job: str, update_id: str) -> Path:
        """Where the frames of an update lie; ':' is kept out of file names."""
        return self._folder / job / f"{update_id.replace(':', '.')}.frames"

    def append(self, chunks: Iterable[Chunk]) -> list[ChunkRow]:
        """Append chunks to their files, sync each file once, and say where every chunk lies."""
        by_update: dict[tuple[str, str], list[Chunk]] = {}
        for chunk in chunks:
            by_update.setdefault((chunk.job, chunk.transfer), []).append(chunk)
        rows: list[ChunkRow] = []
        sizes: dict[Path, int] = {}
        try:
            for (job, update_id), group in by_update.items():
                path = self.path(job, update_id)
                with disk_errors("cannot spool", path):
                    sizes[path] = path.stat().st_size if path.exists() else 0
                    rows += self._append_one(path, job, update_id, group)
        except StoreError:
            # the caller tries again until there is room: what was written must not fill the disk meanwhile
            for path, size in sizes.items():
                with suppress(OSError):
                    os.truncate(path, size)
            raise
        return rows

    def _append_one(self, path: Path, job: str, update_id: str, chunks: list[Chunk]) -> list[ChunkRow]:
        site = UpdateId.parse(update_id).site
        if not path.parent.exists():
            path.parent.mkdir(exist_ok=True)
            sync_folder(self._folder)
        new = not path.exists()
        rows = []
        with path.open("ab", buffering=0) as file:
            offset = file.seek(0, os.SEEK_END)
            for chunk in chunks:
                _write_all(file.fileno(), chunk.body)
                rows.append(
                    ChunkRow(
                        update_id=update_id,
                        job=job,
                        site=site,
                        index=chunk.index,
                        offset=offset,
                        length=len(chunk.body),
                    )
                )
                offset += len(chunk.body)
            os.fsync(file.fileno())
        if new:
            sync_folder(path.parent)
        return rows

    def frames(self, job: str, update_id: str, places: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
        """Read frames back, one at a time, from `(index, offset, length)` rows of the ledger."""
        path = self.path(job, update_id)
        with disk_errors("cannot read spooled update", path), path.open("rb") as file:
            for _, offset, length in places:
                file.seek(offset)
                yield file.read(length)

    def remove(self, job: str, update_ids: Iterable[str]) -> None:
        """Drop the bodies of these updates."""
        for update_id in update_ids:
            self.path(job, update_id).unlink(missing_ok=True)

    def holds(self, job: str) -> bool:
        """Whether bodies of this job were ever spooled here and not dropped with the job."""
        return (self._folder / job).is_dir()

    def remove_job(self, job: str) -> None:
        """Drop all bodies of a job that has ended."""
        shutil.rmtree(self._folder / job, ignore_errors=True)


def _write_all(fd: int, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[os.write(fd, view) :]
