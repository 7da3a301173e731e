"""Fetch the params of a version part by part into a file, with WINDOW parts under way.

A part is asked for when an earlier one is written: that is all the back-pressure there is, and neither side ever holds
more. The file takes its place when it is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from fedbus.bus.envelope import Envelope
from fedbus.core.protocol.answers import ParamsOffer
from fedbus.core.protocol.requests import ParamsQuery, PartQuery
from fedbus.errors import FedbusError, SettingsError
from fedbus.store.files import replace_durably
from fedbus.store.tensor_file import TensorFile

WINDOW = 4
SLOWEST_BYTES_PER_S = 64 * 1024

Progress = Callable[[int, int], None]
"""Is told how many bytes have come, and of how many."""
Ask = Callable[[ParamsQuery], Awaitable[ParamsOffer]]
AskPart = Callable[[PartQuery, timedelta], Awaitable[Envelope]]
Open = Callable[[Envelope, int], bytes]
"""The part that came, at this byte of the file. Raises SealError."""


def as_it_came(answer: Envelope, offset: int) -> bytes:
    """Of parts that are not sealed."""
    return answer.body


class AskedInVainError(FedbusError):
    """The aggregator did not do what was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Which version has come, and the length of its file."""

    version: int
    size_bytes: int


def no_progress(have_bytes: int, size_bytes: int) -> None:
    """Nobody watches."""


def check_place(to: Path, job: str) -> None:
    """Raise SettingsError when no file can be at `to`: before anything is fetched."""
    if to.is_dir() or not to.parent.is_dir():
        what = f"a file, such as {to / job}.safetensors, not a folder" if to.is_dir() else "a folder that exists"
        raise SettingsError(f"cannot write {to}: expected {what}")


async def fetch(
    ask: Ask,
    ask_part: AskPart,
    wanted: ParamsQuery,
    to: Path,
    progress: Progress = no_progress,
    *,
    opener: Callable[[ParamsOffer], Open] = lambda offer: as_it_came,
) -> Fetched:
    """See `Client.get`; `ask_part` is given the time that the parts under way may take on a slow line."""
    check_place(to, wanted.job)
    offer = await ask(wanted)
    opened = opener(offer)
    size, part_bytes = offer.size_bytes, offer.part_bytes
    allowed = timedelta(seconds=WINDOW * part_bytes / SLOWEST_BYTES_PER_S)

    async def part(offset: int) -> bytes:
        answer = await ask_part(PartQuery(of=offer.of, offset=offset), allowed)
        _check_digest(answer, offset)
        return _whole(opened(answer, offset), min(part_bytes, size - offset), offset)

    with replace_durably(to) as beside:
        with beside.open("wb") as file:
            await _write_parts(file, part, range(0, size, part_bytes), lambda have: progress(have, size))
        with TensorFile.open(beside):
            pass  # its header says where it ends, too
    return Fetched(version=offer.version, size_bytes=size)


async def _write_parts(
    file: BinaryIO, part: Callable[[int], Awaitable[bytes]], offsets: range, progress: Callable[[int], None]
) -> None:
    """Write all parts in order; one that fails ends those that are under way, and is raised."""
    under_way: deque[asyncio.Future[bytes]] = deque()
    left = iter(offsets)
    have = 0
    try:
        while True:
            while len(under_way) < WINDOW and (offset := next(left, None)) is not None:
                under_way.append(asyncio.ensure_future(part(offset)))
            if not under_way:
                return
            data = await under_way[0]
            under_way.popleft()
            file.write(data)
            have += len(data)
            progress(have)
    finally:
        for future in under_way:
            future.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def _check_digest(answer: Envelope, offset: int) -> None:
    digest = hashlib.blake2b(answer.body, digest_size=16).hexdigest()
    if answer.headers.get("digest") != digest:
        raise AskedInVainError(
            f"the part at byte {offset} has digest {digest}, expected {answer.headers.get('digest')}: nothing was "
            "written, fetch again"
        )


def _whole(part: bytes, size: int, offset: int) -> bytes:
    if len(part) != size:
        raise AskedInVainError(
            f"the part at byte {offset} has {len(part)} bytes, expected {size}: nothing was written, fetch again"
        )
    return part
