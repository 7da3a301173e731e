"""Where in the model log a site begins to read: by offsets and versions, never by anybody's clock.

    versions   ... | delta 4 | manifest 4 | delta 5, snapshot 5 | manifest 5 | delta 6 | manifest 6
                                  ↑ from here on nothing of snapshot 5 is missed          ↑ the newest manifest

The newest manifest says how many records back its snapshot begins. That is where the site looks: is it not far enough
back (the broker takes some offsets for itself, a publish may have come twice), it looks further.
"""

from __future__ import annotations

from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.stream import Start, StreamReader
from fedbus.core.protocol import messages as m
from fedbus.errors import ProtocolError
from fedbus.trust.epochs import CHUNK, is_sealed, version_of

# What aggregators of earlier releases leave unsaid.
UNSAID_BACK = 16
MORE_BACK = 4


async def before_snapshot(reader: StreamReader, manifest: m.VersionManifest, *, post: Post, offset: int) -> Start:
    """Where to begin to read the newest snapshot; `manifest` is the newest of the log, at `offset`."""
    if manifest.snapshot_version == 0:
        return "first"
    back = manifest.snapshot_back
    records = back + back // 8 + MORE_BACK if back > 0 else UNSAID_BACK
    return await reader.back_to(
        lambda record: precedes(record, manifest.snapshot_version, post=post), newest=offset, records=records
    )


def precedes(record: Envelope, snapshot_version: int, *, post: Post) -> bool:
    """Whether a record surely came before the newest snapshot, which is of this version.

    A version's own delta comes before its snapshot. A part of a snapshot may be of one that was not finished.
    """
    try:
        if is_sealed(record.headers) and record.type != CHUNK:  # whose key may not be here
            return version_of(record.headers) < snapshot_version
        message = post.from_model_log(record, None)
    except ProtocolError:
        return False
    match message:
        case m.Chunk(transfer=transfer, part=part) if transfer.isdecimal():
            return (int(transfer), part != m.DELTA) < (snapshot_version, True)
        case m.VersionManifest(version=version, snapshot=snapshot):
            return (version, snapshot is not None) < (snapshot_version, True)
    return False
