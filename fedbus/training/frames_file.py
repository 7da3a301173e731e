"""Tensors between trainer and site daemon: a file of frames, back to back.

One writes what the other reads; no tensor passes the socket.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from fedbus.core.protocol.frames import FrameHeader, split_frames
from fedbus.errors import DecodeError


def write_frames(path: Path, frames: Iterable[bytes]) -> tuple[int, ...]:
    """Write frames so that `path` is there whole or not at all, whatever is killed; return their sizes in bytes."""
    beside = path.with_name(f"{path.name}.tmp")
    sizes = []
    with beside.open("wb") as file:
        for frame in frames:
            file.write(frame)
            sizes.append(len(frame))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return tuple(sizes)


def read_frames(path: Path) -> list[memoryview]:
    """Return the frames of a file in order of start, as views of the mapped file; the file must not be cut short later.

    Raises DecodeError for a file that is no row of frames (their checksums are not looked at), OSError when it is gone.
    """
    if path.stat().st_size == 0:
        raise DecodeError(f"{path.name} is empty: expected frames")
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return sorted(split_frames(mapped), key=lambda frame: FrameHeader.parse(frame).start)
