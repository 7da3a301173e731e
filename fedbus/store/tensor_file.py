"""Safetensors files, written and read piece by piece: a file of any size costs a buffer, never a copy of its tensors.

What lives here: the format, bytes in and out. What may not: what the tensors are for (see `checkpoints`).

    8 bytes   length of the header, little-endian
    header    JSON, padded with spaces to a multiple of 8:
              {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [...], "data_offsets": [from, to]}, ...}
    data      the bytes of every tensor, without gaps

The safetensors package maps a file into memory, where every page that was looked at counts as this process's own, or
copies each tensor; these files are its files.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fedbus.errors import StoreError

ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
PIECE_BYTES = 1 << 20
MAX_HEADER_BYTES = 100_000_000  # as the package reads them
_METADATA = "__metadata__"
_OTHER_FORMATS: Mapping[bytes, str] = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file itself: run `git lfs pull` where it comes from",
    b"PK\x03\x04": "it looks like a .pt or .pth file of torch.save: load it there and write its state dict with "
    "safetensors.torch.save_file (fedbus opens no pickle)",
    b"\x80": "it looks like a pickle (an old .pt or .bin): load it there and write its state dict with "
    "safetensors.torch.save_file (fedbus opens no pickle)",
    b"\x1f\x8b": "it is compressed with gzip: unpack it",
    b"\x89HDF": "it is HDF5, as Keras writes it: convert it to safetensors",
    b"{": "it is JSON, such as the index of a model in several files: merge them into one safetensors file",
    b"": "it is empty",
}
"""How files begin that people take for safetensors, and what to do with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a file; `dtype` is safetensors' name for it, `start` its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSource:
    """One tensor to be written; its bytes, little-endian in row-major order, come in `pieces`."""

    dtype: str
    shape: tuple[int, ...]
    pieces: Iterable[bytes | memoryview]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def write_tensors(path: Path, tensors: Mapping[str, TensorSource], metadata: Mapping[str, str]) -> None:
    """Write a new file at `path`; what the disk says is raised as it is, as OSError."""
    head, in_order = head_of(tensors, metadata)
    with path.open("wb") as file:
        file.write(head)
        for name in in_order:
            tensor = tensors[name]
            written = sum(file.write(piece) for piece in tensor.pieces)
            if written != tensor.size_bytes:
                raise StoreError(f"tensor {name!r} of {tensor.size_bytes} bytes came as {written} bytes")


def head_of(tensors: Mapping[str, TensorSource], metadata: Mapping[str, str]) -> tuple[bytes, list[str]]:
    """All that stands before the tensors' bytes, and in which order those follow."""
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    at = 0
    # the package writes wide dtypes first, so that every tensor lies at a multiple of its item's size
    in_order = sorted(tensors, key=lambda name: -ITEM_BYTES[tensors[name].dtype])
    for name in in_order:
        tensor = tensors[name]
        size = tensor.size_bytes
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, in_order


class TensorFile:
    """A file opened for reading. `tensors` by name, `metadata` as it stands there."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.metadata, self.tensors = _read_header(file, path)

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[TensorFile]:
        """Raises StoreError when the file cannot be read or is no safetensors file, whole and without gaps."""
        try:
            with path.open("rb", buffering=0) as file:
                yield cls(file, path)
        except OSError as exc:
            raise StoreError(f"cannot read {path}: {exc.strerror or exc}") from exc

    def read_into(self, name: str, out: memoryview) -> None:
        """Fill `out`, of exactly the tensor's bytes, from the file."""
        tensor = self.tensors[name]
        if out.nbytes != tensor.size_bytes:
            raise StoreError(f"cannot read {self._path}: {name!r} has {tensor.size_bytes} bytes, expected {out.nbytes}")
        self._fill(tensor.start, out.cast("B"))

    def read_part_into(self, name: str, first_byte: int, out: memoryview) -> None:
        """Fill `out` with the tensor's bytes from `first_byte` on."""
        tensor = self.tensors[name]
        if not 0 <= first_byte <= tensor.size_bytes - out.nbytes:
            raise StoreError(
                f"cannot read {self._path}: {name!r} has {tensor.size_bytes} bytes, asked for {first_byte}+"
            )
        self._fill(tensor.start + first_byte, out)

    def pieces(self, name: str) -> Iterator[memoryview]:
        """Yield the tensor's bytes, up to PIECE_BYTES at a time; a piece is overwritten by the next one."""
        tensor = self.tensors[name]
        buffer = memoryview(bytearray(min(PIECE_BYTES, tensor.size_bytes)))
        for at in range(0, tensor.size_bytes, PIECE_BYTES):
            piece = buffer[: min(PIECE_BYTES, tensor.size_bytes - at)]
            self._fill(tensor.start + at, piece)
            yield piece

    def _fill(self, start: int, out: memoryview) -> None:
        self._file.seek(start)
        while out:
            count = self._file.readinto(out)  # type: ignore[attr-defined]  # a raw file has it
            if not count:
                raise StoreError(f"cannot read {self._path}: it was cut short meanwhile")
            out = out[count:]


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
        raise StoreError(f"cannot read {path}: no safetensors file, {_what_else(file, size, length)}")
    try:
        header = json.loads(file.read(length))
        metadata = {str(key): str(value) for key, value in header.pop(_METADATA, {}).items()}
        tensors = {str(name): _stored(entry, 8 + length) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise StoreError(f"cannot read {path}: no safetensors file, its header is malformed: {exc!r}") from exc
    _check_gapless(sorted(tensors.values(), key=lambda t: (t.start, t.size_bytes)), 8 + length, size, path)
    return metadata, tensors


def _what_else(file: BinaryIO, size: int, length: int) -> str:
    """What a file is that does not begin as safetensors do, and what to do."""
    file.seek(0)
    head = file.read(32)
    known = (words for magic, words in _OTHER_FORMATS.items() if (head.startswith(magic) if magic else not head))
    return next(known, f"{size} bytes with a header of {length}")


def _stored(entry: Mapping[str, Any], data_start: int) -> StoredTensor:
    first, last = entry["data_offsets"]
    shape: Sequence[int] = entry["shape"]
    if any(type(number) is not int or number < 0 for number in (first, last, *shape)):
        raise ValueError(f"offsets and sizes must be whole numbers, found {entry}")
    if last - first != math.prod(shape) * ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"{last - first} bytes for {entry['dtype']} {list(shape)}")
    return StoredTensor(dtype=entry["dtype"], shape=tuple(shape), start=data_start + first, size_bytes=last - first)


def _check_gapless(tensors: Sequence[StoredTensor], start: int, size: int, path: Path) -> None:
    for tensor in tensors:
        if tensor.start != start:
            raise StoreError(f"cannot read {path}: a tensor lies at byte {tensor.start}, expected at {start}")
        start += tensor.size_bytes
    if start != size:
        raise StoreError(f"cannot read {path}: {size} bytes where its header says {start}: it is not whole")
