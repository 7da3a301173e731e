"""The site's outbox: encoded updates that await their receipt, one pair of files each.

    <sequence>.frames   frames back to back, written by the trainer
    <sequence>.json     manifest, length of every frame, the key that seals them; its appearance commits the entry

The key is drawn once, before the entry is committed: however often an update is sent, each of its sealed chunks is the
same bytes. It is of use with a kit only; an entry of a release before gets one when the outbox is opened.
An entry is removed when its receipt came. After a restart everything still here is sent again: the update id makes
that harmless. With error feedback its residual lies beside it (see `residuals`). Sequence numbers never fall within one
incarnation; an outbox that was lost starts a new incarnation.
Frames without a manifest (the trainer or the site was killed before the commit) are deleted when the outbox is opened.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedbus.core.protocol.messages import UpdateId, UpdateManifest
from fedbus.errors import DecodeError, StoreError
from fedbus.store import manifests
from fedbus.store.files import disk_errors, drop_leftovers, make_folder, replace_durably
from fedbus.store.residuals import Residuals, Source

KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One update in the outbox; `frame_bytes` is the length of each frame.

    `key`: what seals its frames, and nothing else. `compensates` are the sequence numbers of refused updates whose
    share of the residual went into this one.
    """

    update_id: UpdateId
    manifest: UpdateManifest
    frame_bytes: tuple[int, ...]
    path: Path
    key: bytes = field(repr=False)
    compensates: tuple[int, ...] = ()

    def frames(self) -> Iterator[bytes]:
        """Read the frames one at a time."""
        with disk_errors("cannot read outbox", self.path), self.path.open("rb") as file:
            for length in self.frame_bytes:
                yield file.read(length)


class Outbox:
    """Updates of one site for one job, under `folder`. StoreError when an entry cannot be read back."""

    def __init__(self, folder: Path, site: str) -> None:
        self._folder = self.folder = make_folder(folder)
        self._site = site
        drop_leftovers(self._folder)
        self._waiting = {e.update_id: e for e in self._entries()}
        self._drop_uncommitted()
        self._residuals = Residuals(self._folder, [u.sequence for u in self._waiting], self._compensated())
        for update_id in [u for u in self._waiting if self._residuals.is_refused(u.sequence)]:
            self.remove(update_id)  # killed while it was being removed
        self._incarnation, self._next = self._load_counter()

    @property
    def waiting(self) -> tuple[UpdateId, ...]:
        """Ids of the updates that await their receipt, oldest first."""
        return tuple(self._waiting)

    def entries(self) -> tuple[Entry, ...]:
        """The updates that await their receipt, oldest first."""
        return tuple(self._waiting.values())

    def entry(self, update_id: UpdateId) -> Entry | None:
        """One entry; None when its receipt came meanwhile."""
        return self._waiting.get(update_id)

    def next_id(self) -> UpdateId:
        """Reserve the next update id, durably, before anything is written under it."""
        update_id = UpdateId(site=self._site, incarnation=self._incarnation, sequence=self._next)
        self._next += 1
        self._save_counter()
        return update_id

    def frames_path(self, update_id: UpdateId) -> Path:
        """Where the trainer writes the frames of `update_id`."""
        return self._folder / f"{update_id.sequence:08d}.frames"

    def residual_source(self, update_id: UpdateId, *, fresh: bool = False) -> Source:
        """Where the trainer finds the residual that goes into `update_id`, and where it leaves the new one.

        `fresh`: it begins from nothing.
        """
        return self._residuals.source(update_id.sequence, fresh=fresh)

    def commit(
        self,
        update_id: UpdateId,
        manifest: UpdateManifest,
        frame_bytes: Sequence[int],
        *,
        residual: Source | None = None,
    ) -> Entry:
        """Make an entry whose frames file is complete part of the outbox, with the residual it was made with."""
        said = json.loads(manifests.to_text(manifest))
        record = {"update_id": str(update_id), "manifest": said, "frame_bytes": list(frame_bytes), "key": _new_key()}
        if residual is not None:
            record["compensates"] = list(residual.compensates)
        self._write(update_id, record)
        if residual is not None:
            self._residuals.commit(update_id.sequence, residual.compensates)
        entry = self._entry(record)
        self._waiting[update_id] = entry
        return entry

    def _entries(self) -> list[Entry]:
        return [self._read(path) for path in sorted(self._folder.glob("[0-9]*.json"))]

    def _read(self, path: Path) -> Entry:
        try:
            with disk_errors("cannot read outbox", path):
                record = json.loads(path.read_text())
            if "key" not in record:
                record["key"] = _new_key()
                self._write(UpdateId.parse(record["update_id"]), record)
            return self._entry(record)
        except (ValueError, KeyError, TypeError, DecodeError) as exc:
            raise StoreError(
                f"outbox entry {path} cannot be read: {exc}; delete it to go on, the update in it is then lost"
            ) from exc

    def _drop_uncommitted(self) -> None:
        """Delete frames of updates that were never committed, so that crashes do not fill the disk."""
        kept = {entry.path for entry in self._waiting.values()}
        with disk_errors("cannot clean outbox", self._folder):
            for path in self._folder.glob("[0-9]*.frames*"):
                if path not in kept:
                    path.unlink(missing_ok=True)

    def remove(self, update_id: UpdateId, *, refused: bool = False) -> bool:
        """Drop an entry after its receipt; False when it is not (or no longer) here.

        The next update takes up again what a refused one had taken from the residual.
        """
        entry = self._waiting.pop(update_id, None)
        if entry is None:
            return False
        if refused:
            self._residuals.refuse(update_id.sequence)  # before the record goes: either tells what to do
        self._record_path(update_id).unlink(missing_ok=True)
        entry.path.unlink(missing_ok=True)
        self._residuals.settle(update_id.sequence)
        return True

    def _compensated(self) -> list[int]:
        """Refused updates whose residual went into one that is here."""
        return [sequence for entry in self._waiting.values() for sequence in entry.compensates]

    def _entry(self, record: Mapping[str, Any]) -> Entry:
        update_id = UpdateId.parse(record["update_id"])
        return Entry(
            update_id=update_id,
            manifest=manifests.from_text(json.dumps(record["manifest"])),
            frame_bytes=tuple(record["frame_bytes"]),
            path=self.frames_path(update_id),
            key=_key(record["key"]),
            compensates=tuple(record.get("compensates", ())),
        )

    def _write(self, update_id: UpdateId, record: Mapping[str, Any]) -> None:
        with replace_durably(self._record_path(update_id)) as beside:
            beside.touch(0o600)
            beside.write_text(json.dumps(record))

    def _record_path(self, update_id: UpdateId) -> Path:
        return self._folder / f"{update_id.sequence:08d}.json"

    def _load_counter(self) -> tuple[str, int]:
        path = self._folder / "counter"
        with disk_errors("cannot read outbox", path):
            text = path.read_text() if path.exists() else ""
        try:
            found = UpdateId.parse(f"{self._site}:{':'.join(text.split())}")
        except ValueError:
            # lost: a new incarnation, whose files must not take the place of the old one's
            return secrets.token_hex(4), max([self._residuals.next, *(u.sequence + 1 for u in self._waiting)])
        return found.incarnation, found.sequence

    def _save_counter(self) -> None:
        with replace_durably(self._folder / "counter") as beside:
            beside.write_text(f"{self._incarnation} {self._next}\n")


def _new_key() -> str:
    return secrets.token_hex(KEY_BYTES)


def _key(digits: str) -> bytes:
    key = bytes.fromhex(digits)
    if len(key) != KEY_BYTES:
        raise ValueError(f"its key has {len(key)} bytes, expected {KEY_BYTES}")
    return key
