from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import DecodeError, LayoutError


def spec(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype)


def test_small_tensors_come_first_and_each_group_is_in_order_of_names() -> None:
    layout = Layout.of([spec("conv", 33, 32), spec("bias", 32), spec("head", 1025), spec("scale"), spec("edge", 1024)])

    assert [t.name for t in layout.tensors] == ["bias", "edge", "scale", "conv", "head"]
    assert layout.exact_numel == 32 + 1 + 1024
    assert layout.numel == 1057 + 33 * 32 + 1025
    assert layout.slices() == {
        "bias": (0, 32),
        "edge": (32, 1056),
        "scale": (1056, 1057),
        "conv": (1057, 2113),
        "head": (2113, 3138),
    }


def test_digest_is_pinned() -> None:
    layout = Layout.of([spec("w", 40, 30), spec("b", 30, dtype="bfloat16")])

    assert layout.digest == "a8ae2997758e879b"


@pytest.mark.parametrize(
    "other",
    [
        [spec("w", 30, 40), spec("b", 30)],
        [spec("w", 40, 30, dtype="float16"), spec("b", 30)],
        [spec("v", 40, 30), spec("b", 30)],
        [spec("w", 40, 30)],
        [spec("w", 40, 30), spec("b", 30), spec("c", 0)],
    ],
)
def test_any_difference_changes_the_digest(other: list[TensorSpec]) -> None:
    assert Layout.of(other).digest != Layout.of([spec("w", 40, 30), spec("b", 30)]).digest


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ((), "1 to 1000000 tensors, not 0"),
        ((spec("a", 2), spec("b", 3), spec("a", 4)), "'a' is named 2 times"),
        ((spec("a", 0),), "elements, not 0"),
        ((spec("a", 10**6, 10**6),), "elements, not 1000000000000"),
        ((spec("big", 2000), spec("small", 2)), "build the layout with Layout.of"),
    ],
)
def test_a_layout_cannot_be_built_wrong(tensors: tuple[TensorSpec, ...], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        Layout(tensors=tensors)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "message"),
    [
        ("", (1,), "float32", "name of 0 characters"),
        ("n" * 1025, (1,), "float32", "name of 1025 characters"),
        ("n", (2, -1), "float32", "each 0 to"),
        ("n", (1,) * 65, "float32", "up to 64 dimensions"),
        ("n", (1,), "int64", "'n' is int64: expected one of bfloat16, float16, float32, float64"),
    ],
)
def test_a_tensor_spec_cannot_be_built_wrong(name: str, shape: tuple[int, ...], dtype: str, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        TensorSpec(name=name, shape=shape, dtype=dtype)


def test_layout_survives_json() -> None:
    layout = Layout.of([spec("w", 40, 30), spec("b", 30, dtype="float64"), spec("größe")])

    read = Layout.from_dict(json.loads(json.dumps(layout.to_dict())))

    assert read == layout
    assert read.digest == layout.digest


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"tensors": None},
        {"tensors": "w"},
        {"tensors": []},
        {"tensors": [["w", [1.0], "float32"]]},
        {"tensors": [["w", [True], "float32"]]},
        {"tensors": [["w", [-1], "float32"]]},
        {"tensors": [["w", [1], "int32"]]},
        {"tensors": [["w", [1]]]},
        {"tensors": [[7, [1], "float32"]]},
        {"tensors": [["w", [1], "float32"], ["w", [1], "float32"]]},
        {"tensors": [["w", [2000], "float32"], ["b", [1], "float32"]]},
        {"tensors": [["w", [10**30], "float32"]]},
        {"tensors": [0] * 1_000_001},
    ],
)
def test_an_invalid_layout_from_elsewhere_is_a_decode_error(data: Any) -> None:
    with pytest.raises(DecodeError):
        Layout.from_dict(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["tensors", "x"]), inner, max_size=2),
    max_leaves=12,
)


@given(JSON | st.builds(lambda rows: {"tensors": rows}, st.lists(JSON, max_size=4)))
def test_garbage_is_read_or_a_decode_error(data: Any) -> None:
    try:
        layout = Layout.from_dict(data)
    except DecodeError:
        return
    assert Layout.from_dict(layout.to_dict()) == layout
