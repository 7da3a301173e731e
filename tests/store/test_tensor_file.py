"""Safetensors files that others read, read from others, and never trusted further than they go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fedbus.errors import StoreError
from fedbus.store import tensor_file
from fedbus.store.tensor_file import PIECE_BYTES, TensorFile, TensorSource, write_tensors

ARRAYS = {
    "halves": np.linspace(-1, 1, 15, dtype=np.float16).reshape(3, 5),
    "params": np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4),
    "steps": np.array([7], dtype=np.int64),
    "nothing": np.zeros((0, 4), dtype=np.float32),
    "scalar": np.array(2.5, dtype=np.float64),
}
DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}


def source(array: np.ndarray) -> TensorSource:
    return TensorSource(dtype=DTYPES[array.dtype.name], shape=array.shape, pieces=[array.tobytes()])


def read(path: Path, name: str) -> bytes:
    with TensorFile.open(path) as file:
        return b"".join(bytes(piece) for piece in file.pieces(name))


def raw(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_the_package_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "written.safetensors"
    write_tensors(path, {name: source(array) for name, array in ARRAYS.items()}, {"version": "3"})
    found = load_file(path)
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in ARRAYS.items()
    }
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"version": "3"}


def test_every_tensor_lies_at_a_multiple_of_its_items_size(tmp_path: Path) -> None:
    path = tmp_path / "written.safetensors"
    write_tensors(path, {name: source(array) for name, array in ARRAYS.items()}, {})
    with TensorFile.open(path) as file:
        assert all(t.start % tensor_file.ITEM_BYTES[t.dtype] == 0 for t in file.tensors.values())


def test_what_the_package_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "package.safetensors"
    save_file(ARRAYS, path, metadata={"made": "by others"})
    with TensorFile.open(path) as file:
        assert file.metadata == {"made": "by others"}
        shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in file.tensors.items()}
    assert shapes == {name: (DTYPES[a.dtype.name], a.shape) for name, a in ARRAYS.items()}
    assert all(read(path, name) == array.tobytes() for name, array in ARRAYS.items())


def test_a_tensor_is_read_into_the_memory_it_is_for(tmp_path: Path) -> None:
    path = tmp_path / "package.safetensors"
    save_file(ARRAYS, path)
    out = np.empty(8, np.float32)
    with TensorFile.open(path) as file:
        file.read_into("params", out.data)
        with pytest.raises(StoreError, match="'halves' has 30 bytes, expected 32"):
            file.read_into("halves", out.data)
    assert out.tobytes() == ARRAYS["params"].tobytes()


def test_a_large_tensor_comes_in_pieces(tmp_path: Path) -> None:
    path, large = tmp_path / "large.safetensors", np.arange(PIECE_BYTES // 2, dtype=np.float64)
    save_file({"large": large}, path)
    with TensorFile.open(path) as file:
        sizes = [len(piece) for piece in file.pieces("large")]
    assert sizes == [PIECE_BYTES] * 4
    assert read(path, "large") == large.tobytes()


def test_a_tensor_that_comes_with_other_bytes_than_it_announced_is_an_error(tmp_path: Path) -> None:
    wrong = TensorSource(dtype="F32", shape=(2,), pieces=[b"1234"])
    with pytest.raises(StoreError, match="'w' of 8 bytes came as 4 bytes"):
        write_tensors(tmp_path / "x", {"w": wrong}, {})


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"", b"", "no safetensors file"),
        (b"no json at all", b"", "its header is malformed"),
        (b"[" * 100_000, b"", "its header is malformed"),
        ([1, 2], b"", "its header is malformed"),
        ({"w": {"dtype": "F32", "shape": [2]}}, b"", "its header is malformed"),
        ({"w": {"dtype": "F31", "shape": [2], "data_offsets": [0, 8]}}, b"12345678", "its header is malformed"),
        ({"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"12345678", "must be whole numbers"),
        ({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"12345678", "8 bytes for F32"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234", "it is not whole"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234567890", "it is not whole"),
        ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"123456789012", "expected at"),
        ({"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}, b"", "it is not whole"),
    ],
)
def test_a_file_that_is_none_is_an_error_of_the_store(tmp_path: Path, header: object, data: bytes, words: str) -> None:
    path = raw(tmp_path / "bad", header, data)
    with pytest.raises(StoreError, match=f"cannot read {path}: .*{words}"), TensorFile.open(path):
        pass


def test_a_file_shorter_than_its_header_is_an_error_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes((10**9).to_bytes(8, "little") + b"{}")
    with pytest.raises(StoreError, match="no safetensors file"), TensorFile.open(path):
        pass


def test_a_file_that_is_cut_while_it_is_read_is_an_error_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "package.safetensors"
    save_file(ARRAYS, path)
    with TensorFile.open(path) as file:
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(StoreError, match="cut short meanwhile"):
            list(file.pieces("halves"))


def test_a_file_that_is_not_there_is_an_error_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*No such file"), TensorFile.open(tmp_path / "none"):
        pass
