"""Params of one version as the bytes of a safetensors file, any part of them: of a file that is there, or of a
checkpoint, whose flat vector is cast and cut into tensors as far as it is asked for.

A file stays open, so that its version can be read to the end though a newer one takes its place.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import torch

from fedbus.core.protocol.layout import Layout
from fedbus.errors import StoreError
from fedbus.export.params_file import STORED_DTYPES
from fedbus.store.tensor_file import ITEM_BYTES, TensorFile, TensorSource, head_of

HIDDEN = "hidden"
"""The array of a checkpoint that the sites hold."""


class ParamsBytes(Protocol):
    """`size_bytes` in all. Not safe to use from two threads."""

    size_bytes: int

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on, `size` of them or up to the end. Raises StoreError."""
        ...

    def close(self) -> None:
        """Let the file go."""
        ...


class OfFile:
    """A safetensors file as it is. StoreError when it is none, or gone."""

    def __init__(self, path: Path) -> None:
        with TensorFile.open(path):
            pass
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as exc:
            raise StoreError(f"cannot read {path}: {exc.strerror}") from exc
        self._path = path
        self.size_bytes = self._file.seek(0, 2)

    def read(self, offset: int, size: int) -> bytes:
        """See `ParamsBytes`."""
        try:
            self._file.seek(offset)
            return self._file.read(size)
        except OSError as exc:
            raise StoreError(f"cannot read {self._path}: {exc.strerror}") from exc

    def close(self) -> None:
        """See `ParamsBytes`."""
        self._file.close()


class OfCheckpoint:
    """What the sites hold at a checkpoint, as an export of it would be. StoreError when it is none, or gone."""

    def __init__(self, path: Path, layout: Layout, *, job: str) -> None:
        self._stack = ExitStack()
        try:
            self._file = self._stack.enter_context(TensorFile.open(path))
            self._lay_out(layout, {"job": job, "digest": self._file.metadata.get("digest", "")})
            hidden = self._file.tensors.get(HIDDEN)
            if hidden is None or hidden.size_bytes != 4 * layout.numel:
                raise StoreError(f"{path} is no checkpoint of a model of {layout.numel} numbers")
        except BaseException:
            self._stack.close()
            raise

    def _lay_out(self, layout: Layout, metadata: dict[str, str]) -> None:
        places = layout.slices()
        specs = {name: spec for spec in layout.tensors for name in spec.names}
        sources = {
            name: TensorSource(dtype=STORED_DTYPES[spec.dtype], shape=spec.shape, pieces=())
            for name, spec in specs.items()
        }
        self._head, in_order = head_of(sources, metadata)
        # (first byte here, first number there, bytes of a number, dtype) of every tensor that has any numbers
        self._tensors: list[tuple[int, int, int, torch.dtype]] = []
        at = len(self._head)
        for name in in_order:
            source, spec = sources[name], specs[name]
            if source.size_bytes:
                dtype: torch.dtype = getattr(torch, spec.dtype)
                self._tensors.append((at, places[spec.name][0], ITEM_BYTES[source.dtype], dtype))
            at += source.size_bytes
        self._starts = [start for start, *_ in self._tensors]
        self.size_bytes = at

    def read(self, offset: int, size: int) -> bytes:
        """See `ParamsBytes`."""
        end = min(offset + size, self.size_bytes)
        parts = [self._head[offset:end]]
        at = max(offset, len(self._head))
        while at < end:
            which = bisect_right(self._starts, at) - 1
            next_start = self._starts[which + 1] if which + 1 < len(self._starts) else self.size_bytes
            parts.append(self._cut(which, at, min(end, next_start)))
            at = min(end, next_start)
        return b"".join(parts)

    def _cut(self, which: int, at: int, end: int) -> bytes:
        """Bytes `at` to `end` of the file, which are of one tensor."""
        start, number, item, dtype = self._tensors[which]
        first, last = (at - start) // item, -(-(end - start) // item)
        values = torch.empty(last - first)
        self._file.read_part_into(HIDDEN, 4 * (number + first), values.numpy().data.cast("B"))
        cast = values.to(dtype).view(torch.uint8).numpy().data
        skipped = at - start - first * item
        return bytes(cast[skipped : skipped + end - at])

    def close(self) -> None:
        """See `ParamsBytes`."""
        self._stack.close()
