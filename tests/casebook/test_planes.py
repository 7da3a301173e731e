"""Planes of a volume stand as radiologists look at them, whatever the orientation and spacing of the array."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedbus.casebook.planes import COLOURS, draw_, planes_of, turned
from fedbus.errors import DataError
from fedbus.report.png import png_of
from fedbus.training.shown import ShownCase


def pixels_of(png: bytes) -> NDArray[np.uint8]:
    """Read a PNG of 8 bits and three colours whose lines have no filter."""
    at, parts = 8, {}
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + content)
        parts[kind] = content
        at += 12 + size
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
    return lines[:, 1:].reshape(height, width, 3)


def a_case(orientation: str = "RAS", spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> ShownCase:
    """A head of 20 x 24 x 16 mm, in RAS: bright in the corner that is right, front and up."""
    image = np.zeros((20, 24, 16), np.float32)
    image[12:, 14:, 10:] = 100.0
    label = np.zeros(image.shape, np.uint8)
    label[12:16, 14:18, 10:14] = 1
    arrays = [image, label, np.roll(label, 1, axis=0)]
    axes = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    order = [axes[letter] for letter in orientation]
    flips = tuple(axis for axis, letter in enumerate(orientation) if letter in "LPI")
    image, label, prediction = (np.flip(array.transpose(order), flips) for array in arrays)
    return ShownCase(
        id="a",
        image=image,
        label=label,
        prediction=prediction,
        spacing=(spacing[order[0]], spacing[order[1]], spacing[order[2]]),
        classes={1: "tumour"},
        scores={"tumour": 0.75},
        orientation=orientation,
    )


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL", "ILA"])
def test_a_volume_is_turned_to_ras_with_its_spacing(orientation: str) -> None:
    expected, found = turned(a_case()), turned(a_case(orientation, spacing=(1.0, 2.0, 3.0)))
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.prediction, expected.prediction)
    assert found.spacing == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("orientation", ["RAS", "LPI"])
def test_the_right_of_the_patient_is_on_the_left_the_front_and_the_head_are_up(orientation: str) -> None:
    axial, coronal, sagittal = planes_of(a_case(orientation), outlines=False)
    for picture, letters in ((axial, "RLAP"), (coronal, "RLSI"), (sagittal, "APSI")):
        shades = pixels_of(picture.png)[..., 0]
        height, width = shades.shape
        bright = np.argwhere(shades > 200).mean(axis=0)
        assert picture.edges == letters
        assert bright[0] < height / 2, "what is at the front, or up, is in the upper half"
        assert bright[1] < width / 2, "what is on the right, or at the front, is in the left half"


def test_a_millimetre_is_as_long_in_every_direction() -> None:
    axial, coronal, sagittal = planes_of(a_case(spacing=(1.0, 1.0, 5.0)))  # 20 x 24 x 80 mm
    sizes = [(picture.width_px, picture.height_px) for picture in (axial, coronal, sagittal)]
    assert sizes == [(75, 90), (75, 300), (90, 300)]
    assert [pixels_of(picture.png).shape[:2][::-1] for picture in (axial, coronal, sagittal)] == sizes


def test_the_slices_go_through_what_there_is_to_see() -> None:
    axial, coronal, sagittal = planes_of(a_case())
    assert axial.caption == "axial, slice 11 of 16"
    assert coronal.caption == "coronal, slice 15 of 24"
    assert 13 <= int(sagittal.caption.split()[2]) <= 17
    plain = pixels_of(planes_of(a_case(), outlines=False)[0].png)
    outlined = pixels_of(axial.png)
    changed = np.unique(outlined[(plain != outlined).any(axis=2)], axis=0)
    np.testing.assert_array_equal(changed, [COLOURS[0][1]])


def test_a_label_is_a_solid_line_and_a_prediction_a_dashed_one() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[5:35, 5:35] = 2
    solid, dashed = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40, 3), np.uint8)
    draw_(solid, mask, dashed=False)
    draw_(dashed, mask, dashed=True)
    assert int(solid.any(axis=2).sum()) == 30**2 - 26**2
    assert 0.3 < dashed.any(axis=2).sum() / solid.any(axis=2).sum() < 0.7
    assert solid[5, 5].tolist() == list(COLOURS[1][1])


@pytest.mark.parametrize("empty", [True, False])
def test_a_case_of_nothing_is_drawn_too(*, empty: bool) -> None:
    shape = (4, 1, 3)
    nothing = np.zeros(shape, np.uint8)
    image = np.zeros(shape, np.float32) if empty else np.full(shape, 7.0, np.float32)
    case = ShownCase(
        id="a",
        image=image,
        label=nothing,
        prediction=nothing,
        spacing=(1.0, 1.0, 1.0),
        classes={1: "tumour"},
        scores={"tumour": float("nan")},
    )
    assert len(planes_of(case)) == 3


def test_arrays_that_do_not_fit_are_refused() -> None:
    case = a_case()
    with pytest.raises(DataError, match="of one shape"):
        turned(ShownCase(**{**_fields(case), "label": case.label[1:]}))
    with pytest.raises(DataError, match="orientation such as RAS"):
        turned(ShownCase(**{**_fields(case), "orientation": "RRS"}))
    with pytest.raises(ValueError, match="expected pixels uint8"):
        png_of(np.zeros((2, 2), np.uint8))


def _fields(case: ShownCase) -> dict[str, Any]:
    return {name: getattr(case, name) for name in case.__slots__}
