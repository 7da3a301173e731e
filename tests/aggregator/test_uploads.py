"""How large an update can be: whatever a site may send fits, and not much more."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fedbus.aggregator.incoming.uploads import MOST_BYTES_UNKNOWN, Uploads, most_bytes
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import ProtocolError
from fedbus.tensors import codec

UPDATE = "mercy:0123abcd:1"
TINY = Layout.of([TensorSpec(name="w", shape=(10,), dtype="float32")])
MIXED = Layout.of(
    [
        *(TensorSpec(name=f"bias.{n}", shape=(1000,), dtype="float32") for n in range(300)),
        TensorSpec(name="w", shape=(1_000_003,), dtype="float32"),
    ]
)


def chunk(index: int, count: int, body: bytes) -> m.Chunk:
    return m.Chunk(job="heart", transfer=UPDATE, part="update", index=index, count=count, body=body)


def manifest(frames: list[bytes]) -> m.UpdateManifest:
    return m.UpdateManifest(
        job="heart",
        update_id=UPDATE,
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1),
        layout_digest="1a",
        frames=len(frames),
        body_bytes=sum(map(len, frames)),
    )


@pytest.mark.parametrize("code", list(Code))
@pytest.mark.parametrize("layout", [TINY, MIXED], ids=["tiny", "mixed"])
@pytest.mark.parametrize("chunk_bytes", [256 * 1024, 300_001, 8 << 20])
def test_an_update_of_any_code_in_chunks_of_any_size_fits(code: Code, layout: Layout, chunk_bytes: int) -> None:
    # given a delta that does not compress
    delta = torch.randn(layout.numel, generator=torch.Generator().manual_seed(1))
    frames = list(codec.encode(delta, layout, code, chunk_bytes=chunk_bytes, seed=0))
    # when it arrives, then all of it is taken
    uploads = Uploads(chunk_bytes=chunk_bytes, most_bytes=lambda: most_bytes(layout))
    assert all(uploads.add(chunk(i, len(frames), frame), now=0.0) for i, frame in enumerate(frames))
    assert uploads.add(manifest(frames), now=0.0)
    assert uploads.complete() == [UPDATE]
    assert uploads.pop(UPDATE).excess == ""


def test_many_empty_chunks_are_more_than_an_update_has() -> None:
    uploads = Uploads(chunk_bytes=1 << 20, most_bytes=lambda: most_bytes(TINY))
    for index in range(9):
        uploads.add(chunk(index, 1000, b""), now=0.0)
    with pytest.raises(ProtocolError, match="has 0 bytes in 10 chunks: one of this job has at most 1048626 bytes in 9"):
        uploads.add(chunk(9, 1000, b""), now=0.0)
    # and what comes after that is not even looked at
    assert not uploads.add(chunk(10, 1000, b""), now=0.0)


def test_before_the_layout_is_known_initial_params_of_any_model_fit() -> None:
    uploads = Uploads(chunk_bytes=1 << 20, most_bytes=lambda: most_bytes(None))
    huge = dataclasses.replace(manifest([]), kind=m.UpdateKind.INITIAL, frames=65_000, body_bytes=MOST_BYTES_UNKNOWN)
    uploads.add(huge, now=0.0)
    assert uploads.complete() == []
