"""Params that are there already: of a file, or of a version that some job has left; shown to sites as they are.

What is to be shown is copied first, piece by piece: a running job replaces its files, and one that has ended may be
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fedbus.aggregator.model.keeper import Outgoing
from fedbus.aggregator.model.params_bytes import ParamsBytes
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout
from fedbus.errors import LayoutError, StoreError
from fedbus.export.params_file import read_params
from fedbus.store.files import replace_durably
from fedbus.tensors import digest as digests
from fedbus.tensors.codec import encode, frame_count

PIECE_BYTES = 4 << 20


class Whole(Protocol):
    """A whole model that can go into a model log: the newest version of a job, or `GivenParams`."""

    def snapshot(self, version: int) -> Outgoing:
        """Its frames, under this number."""

    def digest(self) -> str:
        """16 hex digits of its exact bits, see `fedbus.tensors.digest`."""


class GivenParams:
    """Params of a safetensors file in a layout, float32 [numel]. Raises LayoutError unless it is of that model.

    into: a vector that holds them, as long as this is used; None: a new one is made.
    """

    def __init__(self, path: Path, layout: Layout, *, chunk_bytes: int, into: Tensor | None = None) -> None:
        try:
            self._flat: Tensor = read_params(path, layout, into=into)
        except StoreError as exc:
            raise LayoutError(str(exc)) from exc
        self._layout = layout
        self._chunk_bytes = chunk_bytes

    def snapshot(self, version: int) -> Outgoing:
        """See `Whole`."""
        count = frame_count(self._layout, Code.FP32, chunk_bytes=self._chunk_bytes)
        return Outgoing(version=version, count=count, frames=self._frames())

    def digest(self) -> str:
        """See `Whole`."""
        return digests.digest(self._flat)

    def _frames(self) -> Iterator[bytes]:
        chunk_bytes = self._chunk_bytes
        return encode(self._flat, self._layout, Code.FP32, chunk_bytes=chunk_bytes, seed=0, to_hidden=True)


def copy_params(source: ParamsBytes, path: Path) -> None:
    """Write the whole of a file somewhere else, durably. Raises StoreError."""
    at = 0
    with replace_durably(path) as beside, beside.open("wb") as file:
        while at < source.size_bytes:
            at += file.write(source.read(at, PIECE_BYTES))


def copy_once(path: Path, open_source: Callable[[], tuple[str, ParamsBytes]]) -> str:
    """Copy a model to `path`, unless an earlier process did; returns what it is, which a file beside says.

    open_source: opens the model and says it in words. Raises StoreError.
    """
    name = path.with_suffix(".txt")
    if not name.exists():
        says, source = open_source()
        try:
            copy_params(source, path)
        finally:
            source.close()
        with replace_durably(name) as beside:
            beside.write_text(says)
    return name.read_text()
