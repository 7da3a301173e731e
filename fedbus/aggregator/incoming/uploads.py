"""What has arrived of each update that is not complete: numbers in, decisions out. No bytes, no disk, no bus.

    new        the chunk or manifest is to be kept; what came before changes nothing but the time of the last arrival
    silent     the manifest came and chunks are missing: its site is asked for all of it, at growing intervals
    stale      nothing came for so long that the bytes are dropped. Safe: when the site goes on, its manifest arrives,
               chunks are missing, and it is asked for all of it
    crowding   one site has begun more updates than a site can need
    excess     more came than an update of this job can have, or than itself says: it is refused as soon as its manifest
               is there
    copies     chunks that came again: a site whose link broke sends everything once more, so that many are no trouble
    problem    why an update that is complete is not what its manifest says, or says what cannot be

Times are seconds on one clock. Memory: one entry per update that is not complete, at most 2 MAX_PARTIALS per site.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fedbus.core.job.status_text import span
from fedbus.core.protocol.answers import Receiving
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.messages import Chunk, UpdateId, UpdateManifest
from fedbus.errors import ProtocolError

MAX_FRAMES = 1 << 20
MAX_PARTIALS = 8
RESEND_AFTER_S = 5.0
RESEND_MOST_S = 300.0
MIB = 1 << 20
MOST_BYTES_UNKNOWN = 64 << 30
# More steps, seconds or travel (squared length) than that no training has.
MOST_CLAIMED = 10**12


def most_bytes(layout: Layout | None) -> int:
    """Bytes that an update can have: exact fp32 and a quarter more. Before the layout is known 64 GiB."""
    return MOST_BYTES_UNKNOWN if layout is None else 5 * layout.numel + MIB


def claim_against(manifest: UpdateManifest) -> str:
    """What a manifest says of its making that cannot be; empty when all of it can."""
    effort = manifest.effort
    for what in ("steps", "seconds", "travel", "data_wait_s"):
        value = getattr(effort, what)
        if not 0 <= value <= MOST_CLAIMED:
            return f"{what} must be 0 to {MOST_CLAIMED}, got {value:g}"
    return ""


@dataclass(slots=True, kw_only=True)
class Upload:
    """What has arrived of one update."""

    update_id: str
    site: str
    began_at: float
    touched_at: float
    ask_at: float
    pause_s: float = RESEND_AFTER_S
    have: int = 0
    """One bit for each chunk by its index: 2000 chunks of 200 sites take 50 KiB."""
    body_bytes: int = 0
    count: int = 0
    manifest: UpdateManifest | None = None
    excess: str = ""
    copies: int = 0
    traceparent: str = ""

    @property
    def chunks(self) -> int:
        return self.have.bit_count()

    @property
    def repeats(self) -> bool:
        """Whether more came again than one more sending explains."""
        return self.copies > self.chunks + 1

    @property
    def complete(self) -> bool:
        # more chunks than announced make an update that is refused, not one that its site awaits for ever
        return self.manifest is not None and (bool(self.excess) or self.chunks >= self.manifest.frames)

    def differs(self, count: int) -> str:
        """Why this cannot be the number of its chunks; empty when nobody said another."""
        if self.count in (0, count):
            return ""
        return f"update {self.update_id} is said to have {self.count} chunks, and {count}: each of them says the same"

    @property
    def problem(self) -> str:
        """Why it is refused unread; empty when there is no reason."""
        if self.excess or self.manifest is None:
            return self.excess
        said = self.manifest.body_bytes
        if said != self.body_bytes:
            return f"update {self.update_id} has {said} bytes by its manifest, {self.body_bytes} bytes came"
        return claim_against(self.manifest)

    def touch(self, now: float) -> None:
        self.touched_at = now
        self.pause_s = RESEND_AFTER_S
        self.ask_at = now + RESEND_AFTER_S

    def says(self, now: float) -> str:
        """How far it came, in words."""
        came = f"{self.chunks} of {self.count or 'an unknown number of'} chunks of update {self.update_id} came"
        return f"{self.site}: {came}, then nothing for {span(now - self.touched_at)}"


class Uploads:
    """Updates of one job; `most_bytes` says how large one may be by now."""

    def __init__(self, *, chunk_bytes: int, most_bytes: Callable[[], int]) -> None:
        self._chunk_bytes = chunk_bytes
        self._most_bytes = most_bytes
        self._by_id: dict[str, Upload] = {}

    # -------------------------------------------------------------- what arrives

    def add(self, message: Chunk | UpdateManifest, *, now: float) -> bool:
        """Whether the message is new. ProtocolError for the chunk that makes an update larger than it can be."""
        match message:
            case Chunk():
                return self._add_chunk(message, now)
            case UpdateManifest():
                return self._add_manifest(message, now)

    def _add_chunk(self, chunk: Chunk, now: float) -> bool:
        upload = self._touched(chunk.transfer, now)
        differs = upload.differs(chunk.count)
        if upload.excess or (upload.have >> chunk.index & 1 and not differs):
            upload.copies += 1
            return False
        frames, body_bytes = upload.chunks + 1, upload.body_bytes + len(chunk.body)
        upload.excess = differs or self._excess(chunk.transfer, frames, body_bytes)
        if upload.excess:
            raise ProtocolError(upload.excess)
        upload.have |= 1 << chunk.index
        upload.body_bytes = body_bytes
        upload.count = chunk.count
        return True

    def _add_manifest(self, manifest: UpdateManifest, now: float) -> bool:
        upload = self._touched(manifest.update_id, now)
        if upload.manifest is not None:
            upload.copies += 1
            return False
        upload.manifest = manifest
        upload.excess = upload.excess or upload.differs(manifest.frames)
        upload.count = manifest.frames
        upload.excess = upload.excess or self._excess(manifest.update_id, manifest.frames, manifest.body_bytes)
        return True

    def _excess(self, update_id: str, frames: int, body_bytes: int) -> str:
        most = self._most_bytes()
        most_frames = min(MAX_FRAMES, most // self._chunk_bytes + 8)
        if body_bytes <= most and frames <= most_frames:
            return ""
        return (
            f"update {update_id} has {body_bytes} bytes in {frames} chunks: one of this job has at most {most} bytes in"
            f" {most_frames} chunks"
        )

    def restore(
        self, update_id: str, lengths: Mapping[int, int], *, manifest: UpdateManifest | None, now: float
    ) -> None:
        """Take up what an earlier process left; `lengths` are those of the chunks by index."""
        upload = self._touched(update_id, now)
        upload.have = sum(1 << index for index in lengths)
        upload.body_bytes = sum(lengths.values())
        upload.manifest = manifest
        upload.count = manifest.frames if manifest is not None else 0

    def _touched(self, update_id: str, now: float) -> Upload:
        upload = self._by_id.get(update_id)
        if upload is None:
            site = UpdateId.parse(update_id).site
            upload = Upload(update_id=update_id, site=site, began_at=now, touched_at=now, ask_at=0.0)
            self._by_id[update_id] = upload
        upload.touch(now)
        return upload

    # -------------------------------------------------------------- what follows

    def complete(self) -> list[str]:
        """Ids of the updates of which everything is there."""
        return [update_id for update_id, upload in self._by_id.items() if upload.complete]

    def unfinished(self) -> list[UpdateManifest]:
        """Manifests of the updates that miss chunks."""
        return [upload.manifest for upload in self._by_id.values() if upload.manifest is not None]

    def repeats(self, update_id: str) -> bool:
        """Whether more of an update came again than one more sending explains."""
        return self._by_id[update_id].repeats

    def came_with(self, update_id: str, traceparent: object) -> None:
        """The header of its manifest, whatever it is."""
        self._by_id[update_id].traceparent = traceparent if isinstance(traceparent, str) else ""

    def pop(self, update_id: str) -> Upload:
        return self._by_id.pop(update_id)

    def silent(self, now: float) -> Iterator[Upload]:
        """Updates to ask for again; each is yielded at growing intervals until something comes."""
        for upload in self._by_id.values():
            if upload.manifest is not None and not upload.complete and now >= upload.ask_at:
                upload.pause_s = min(2 * upload.pause_s, RESEND_MOST_S)
                upload.ask_at = now + upload.pause_s
                yield upload

    def stale(self, now: float, *, after_s: float) -> list[Upload]:
        """Updates whose bytes nobody adds to any more."""
        return [u for u in self._by_id.values() if now - u.touched_at >= after_s and (u.have or u.manifest is None)]

    def crowding(self) -> list[Upload]:
        """What each site has begun beyond MAX_PARTIALS, untouched longest first; the same for what misses chunks.

        The two are counted apart, so that updates whose chunks were lost do not keep a site from sending others. An
        update whose manifest came was confirmed to its site, so it is refused on record and not just dropped.
        """
        found: list[Upload] = []
        over = Counter((u.site, u.manifest is not None) for u in self._by_id.values())
        if max(over.values(), default=0) <= MAX_PARTIALS:
            return found
        for upload in sorted(self._by_id.values(), key=lambda u: u.touched_at):
            kind = upload.site, upload.manifest is not None
            if over[kind] > MAX_PARTIALS:
                over[kind] -= 1
                found.append(upload)
        return found

    def forget(self, upload: Upload) -> None:
        """Its bytes are gone; the manifest of one that was confirmed stays, so that the site is asked again."""
        upload.have, upload.body_bytes = 0, 0
        if upload.manifest is None:
            del self._by_id[upload.update_id]

    def receiving(self, now: float) -> tuple[Receiving, ...]:
        """Every upload that is under way, the one that was touched last first."""
        uploads = sorted(self._by_id.values(), key=lambda u: u.touched_at, reverse=True)
        return tuple(
            Receiving(
                site=u.site,
                update_id=u.update_id,
                chunks=u.chunks,
                count=u.count,
                body_bytes=u.body_bytes,
                age_s=now - u.touched_at,
            )
            for u in uploads
        )
