"""Where a joiner begins to read: before the newest snapshot, whatever stands around it in the log."""

from __future__ import annotations

import dataclasses
import struct

import pytest

from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.frames import Code, build_frame
from fedbus.site.job.log_place import precedes

FRAME = build_frame(Code.FP32, 0, 10, [struct.pack("<10f", *range(10))])
PART = m.Part(frames=1, body_bytes=len(FRAME))


def record(version: int, what: str) -> Envelope:
    """A chunk of 'delta' or 'snapshot', or a manifest with or without one."""
    message: m.Chunk | m.VersionManifest
    if what in ("delta", "snapshot"):
        message = m.Chunk(job="heart", transfer=str(version), part=what, index=0, count=1, body=FRAME)
    else:
        message = m.VersionManifest(
            job="heart",
            version=version,
            digest="d",
            delta=PART,
            snapshot=PART if what == "manifest with snapshot" else None,
            snapshot_version=5,
            snapshot_at=0.0,
        )
    return dataclasses.replace(Post().to_model_log(message), user_id="aggregator")


@pytest.mark.parametrize(
    ("version", "what", "before"),
    [
        (4, "delta", True),
        (4, "snapshot", True),
        (4, "manifest", True),
        (4, "manifest with snapshot", True),
        (5, "delta", True),
        (5, "manifest", True),  # the snapshot came later, because a site asked for it
        (5, "snapshot", False),
        (5, "manifest with snapshot", False),
        (6, "delta", False),
        (6, "manifest", False),
    ],
)
def test_what_surely_comes_before_the_snapshot_of_version_5(version: int, what: str, before: bool) -> None:
    assert precedes(record(version, what), 5, post=Post()) is before


def test_a_record_that_cannot_be_read_says_nothing() -> None:
    assert precedes(dataclasses.replace(record(4, "manifest"), body=b"{"), 5, post=Post()) is False
