"""Three planes of a volume as pictures, as radiologists look at them: the patient's right on the left of the picture.

    axial      from below, front at the top        left R, right L, top A, bottom P
    coronal    from the front, head at the top     left R, right L, top S, bottom I
    sagittal   from the left, head at the top      left A, right P, top S, bottom I

Pixels are square in mm. The label's outline is a solid line, the model's a dashed one, one colour a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedbus.errors import DataError
from fedbus.report.page import Picture
from fedbus.report.png import png_of
from fedbus.training.shown import ShownCase

LARGEST_PX: Final = 300
LINE_PX: Final = 2
DASH_PX: Final = 5
COLOURS: Final = (
    ("orange", (255, 159, 28)),
    ("cyan", (46, 196, 255)),
    ("magenta", (255, 92, 200)),
    ("green", (110, 231, 90)),
    ("yellow", (255, 236, 80)),
    ("red", (255, 90, 80)),
)
AXES: Final = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
FORWARD: Final = "RAS"
PLANES: Final = {"axial": (2, "RLAP"), "coronal": (1, "RLSI"), "sagittal": (0, "APSI")}
"""The axis that a plane cuts, and the letters at its left, right, top and bottom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """A case whose axes lead to the right, to the front, up."""

    image: NDArray[Any]
    label: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    spacing: tuple[float, float, float]


def colour_of(channel: int) -> str:
    """The name of the colour in which a class is drawn; the colours come again after six."""
    return COLOURS[(channel - 1) % len(COLOURS)][0]


def turned(case: ShownCase) -> Turned:
    """Turn and flip a case's axes to RAS. Raises DataError for arrays that do not fit each other."""
    if not case.image.shape == case.label.shape == case.prediction.shape or case.image.ndim != 3:
        shapes = [list(array.shape) for array in (case.image, case.label, case.prediction)]
        raise DataError(f"expected image, label and prediction of one shape [X, Y, Z], got {shapes}")
    axes = [AXES.get(letter, -1) for letter in case.orientation]
    if sorted(axes) != [0, 1, 2]:
        raise DataError(f"expected an orientation such as RAS, got {case.orientation!r}")
    order = [axes.index(axis) for axis in range(3)]
    flips = tuple(axis for axis in range(3) if case.orientation[order[axis]] != FORWARD[axis])
    image, label, prediction = (
        np.flip(array.transpose(order), flips) for array in (case.image, case.label, case.prediction)
    )
    x, y, z = (case.spacing[axis] for axis in order)
    return Turned(image=image, label=label, prediction=prediction, spacing=(x, y, z))


def planes_of(case: ShownCase, *, outlines: bool = True) -> list[Picture]:
    """Return the axial, coronal and sagittal picture of a case, through its most telling slices."""
    whole = turned(case)
    telling = _telling(case, whole)
    # of the whole volume, so that a slice is as bright as its neighbours
    dark, bright = np.percentile(whole.image, [1, 99])
    per_mm = LARGEST_PX / max(n * mm for n, mm in zip(whole.image.shape, whole.spacing, strict=True))
    pictures = []
    for name, (axis, letters) in PLANES.items():
        at = _largest_slice(telling, axis)
        grey, label, prediction = (
            _upright(np.take(array, at, axis=axis)) for array in (whole.image, whole.label, whole.prediction)
        )
        across, up = (whole.spacing[other] for other in range(3) if other != axis)
        height, width = max(1, round(grey.shape[0] * up * per_mm)), max(1, round(grey.shape[1] * across * per_mm))
        rows, columns = _nearest(height, grey.shape[0]), _nearest(width, grey.shape[1])
        shades = np.clip((_smooth(grey, height, width) - dark) / ((bright - dark) or 1.0), 0, 1)
        pixels = np.repeat((shades * 255).astype(np.uint8)[..., None], 3, axis=2)
        if outlines:
            draw_(pixels, label[np.ix_(rows, columns)], dashed=False)
            draw_(pixels, prediction[np.ix_(rows, columns)], dashed=True)
        caption = f"{name}, slice {at + 1} of {whole.image.shape[axis]}"
        says = f"{caption}, {'with' if outlines else 'without'} outlines"
        pictures.append(
            Picture(png=png_of(pixels), width_px=width, height_px=height, says=says, caption=caption, edges=letters)
        )
    return pictures


def draw_(pixels: NDArray[np.uint8], channels: NDArray[np.uint8], *, dashed: bool) -> None:
    """Draw the outline of every class of channels [height, width] into pixels [height, width, 3]."""
    rows, columns = np.indices(channels.shape)
    dashes = (rows + columns) // DASH_PX % 2 == 0
    for channel in np.unique(channels).tolist():
        if channel:
            line = _outline(channels == channel)
            pixels[line & dashes if dashed else line] = COLOURS[(channel - 1) % len(COLOURS)][1]


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask that are LINE_PX or less from what is outside it."""
    inside = mask
    for _ in range(LINE_PX):
        padded = np.pad(inside, 1)
        inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inside
    return mask & ~inside


def _telling(case: ShownCase, whole: Turned) -> NDArray[np.bool_]:
    """What the label or the model says of the class with the lowest score; of all classes when that is nothing."""
    known = {name: value for name, value in case.scores.items() if not np.isnan(value)}
    worst = min(known, key=lambda name: known[name]) if known else None
    channels = [channel for channel, name in case.classes.items() if name == worst]
    found = np.isin(whole.label, channels) | np.isin(whole.prediction, channels)
    return found if found.any() else (whole.label > 0) | (whole.prediction > 0)


def _largest_slice(mask: NDArray[np.bool_], axis: int) -> int:
    areas = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    return int(areas.argmax()) if areas.any() else mask.shape[axis] // 2


def _upright(plane: NDArray[Any]) -> NDArray[Any]:
    """A plane [across, up] of a volume in RAS as rows from the top and columns from R or A."""
    return np.flip(plane, (0, 1)).T


def _nearest(wanted: int, there: int) -> NDArray[np.int64]:
    return np.minimum(((np.arange(wanted) + 0.5) * there / wanted).astype(np.int64), there - 1)


def _smooth(plane: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    """Resample [rows, columns] linearly to [height, width]."""
    values = plane.astype(np.float64)
    for axis, wanted in ((0, height), (1, width)):
        there = values.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * there / wanted - 0.5, 0, there - 1)
        low = at.astype(np.int64)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, there - 1)
        values = np.take(values, low, axis) * (1 - share) + np.take(values, high, axis) * share
    return values
