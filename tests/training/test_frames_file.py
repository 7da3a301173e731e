from __future__ import annotations

from pathlib import Path

import pytest

from fedbus.core.protocol.frames import Code, build_frame
from fedbus.errors import DecodeError
from fedbus.training.frames_file import read_frames, write_frames

FRAMES = [build_frame(Code.FP32, start, 4, [bytes([start]) * (start + 1)]) for start in (0, 4, 8)]


def test_frames_come_back_as_they_were_with_their_sizes(tmp_path: Path) -> None:
    sizes = write_frames(tmp_path / "delta", iter(FRAMES))

    assert sizes == tuple(len(frame) for frame in FRAMES)
    assert [bytes(frame) for frame in read_frames(tmp_path / "delta")] == FRAMES
    assert [path.name for path in tmp_path.iterdir()] == ["delta"]


def test_frames_come_back_in_order_of_start(tmp_path: Path) -> None:
    write_frames(tmp_path / "delta", reversed(FRAMES))

    assert [bytes(frame) for frame in read_frames(tmp_path / "delta")] == FRAMES


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    def interrupted():  # type: ignore[no-untyped-def]
        yield FRAMES[0]
        raise RuntimeError("killed here")

    write_frames(tmp_path / "delta", FRAMES)
    with pytest.raises(RuntimeError):
        write_frames(tmp_path / "delta", interrupted())

    assert len(read_frames(tmp_path / "delta")) == 3


@pytest.mark.parametrize("content", [b"", b"FB", FRAMES[0][:-1], FRAMES[0] + b"\0" * 9, b"\0" * 24, b"x" * 500])
def test_a_file_that_holds_no_frames_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "delta").write_bytes(content)

    with pytest.raises(DecodeError):
        read_frames(tmp_path / "delta")
