"""A folder with the slices of one DICOM series, as one volume.

Slices are sorted by where they lie along the normal of the image plane (never by name or number), and must be evenly
spaced: a gap is a missing slice. DICOM's coordinates lead to the left, the back and up (LPS); they are turned to RAS.
Stored values become real ones by Rescale Slope and Intercept (PS3.3 C.7.6.2 and C.11.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedbus.imaging.problems import refused
from fedbus.imaging.volumes import Volume, check_size, checked, needed

MOST_SLICES: Final = 8192
EVEN: Final = 0.05
"""Share of the usual distance by which two slices may lie nearer or farther than the others."""
SAME_PLACE_MM: Final = 1e-3
NEEDED: Final = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SeriesInstanceUID",
)
LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    path: Path
    series: str
    shape: tuple[int, int]  # columns, rows
    place: NDArray[np.float64]  # [3], mm
    directions: NDArray[np.float64]  # [2, 3], along a row, along a column
    spacing: tuple[float, float]  # between columns, between rows


def read_series(folder: Path) -> Volume:
    """Read the one series of a folder; StudyError for what is no such thing."""
    with needed("reading DICOM"):
        import pydicom  # noqa: F401
    slices = [_header(path) for path in _files(folder)]
    _check_one_series(folder, slices)
    ordered, step = _in_order(folder, slices)
    columns, rows = ordered[0].shape
    check_size((columns, rows, len(ordered)), folder)
    first = ordered[0]
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.spacing[0]
    affine[:3, 1] = first.directions[1] * first.spacing[1]
    affine[:3, 2] = step
    affine[:3, 3] = first.place
    array = np.empty((columns, rows, len(ordered)), dtype=np.float32)
    stored: np.dtype[Any] = np.dtype(np.int16)
    for at, one in enumerate(ordered):
        array[:, :, at], stored = _pixels(one)
    return Volume(array=array, affine=checked(LPS_TO_RAS @ affine, folder), dtype=stored)


def _files(folder: Path) -> list[Path]:
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and not path.name.lower().endswith((".nii", ".nii.gz"))
        and path.name != "DICOMDIR"
    ]
    if not files:
        raise refused("unreadable", folder, "there is no DICOM file in it")
    if len(files) > MOST_SLICES:
        raise refused("too-large", folder, f"it has {len(files)} files; expected one series of at most {MOST_SLICES}")
    return files


def _header(path: Path) -> _Slice:
    import pydicom

    try:
        found = pydicom.dcmread(path, stop_before_pixels=True)
        absent = [name for name in NEEDED if getattr(found, name, None) is None]
        if absent:
            raise refused("unreadable", path, f"expected a slice with {', '.join(absent)}, its header has none")
        if int(getattr(found, "NumberOfFrames", 1) or 1) > 1:
            raise refused("not-3d", path, "it holds several frames; expected one file per slice: convert it to NIfTI")
        along = np.array([float(x) for x in found.ImageOrientationPatient], dtype=np.float64).reshape(2, 3)
        between_rows, between_columns = (float(x) for x in found.PixelSpacing)
        return _Slice(
            path=path,
            series=str(found.SeriesInstanceUID),
            shape=(int(found.Columns), int(found.Rows)),
            place=np.array([float(x) for x in found.ImagePositionPatient], dtype=np.float64).reshape(3),
            directions=along,
            spacing=(between_columns, between_rows),
        )
    except EOFError as exc:
        raise refused("truncated", path, f"its header ends too early ({exc}); copy it again") from exc
    except (OSError, ValueError, TypeError, AttributeError, KeyError, pydicom.errors.InvalidDicomError) as exc:
        raise refused("unreadable", path, f"it cannot be read as DICOM ({exc})") from exc


def _check_one_series(folder: Path, slices: list[_Slice]) -> None:
    first = slices[0]
    if len({one.series for one in slices}) > 1:
        other = next(one for one in slices if one.series != first.series)
        text = f"{first.path.name} and {other.path.name} are of different series; expected one series per folder"
        raise refused("several-series", folder, text)
    for one in slices:
        turned = np.abs(one.directions - first.directions).max() > SAME_PLACE_MM
        if one.shape != first.shape or turned or not np.allclose(one.spacing, first.spacing):
            text = f"its size, spacing or direction differs from that of {first.path.name}: is it a localizer?"
            raise refused("bad-geometry", one.path, text)
    if len(slices) < 2:
        raise refused("not-3d", folder, "it has one slice; expected a volume")


def _in_order(folder: Path, slices: list[_Slice]) -> tuple[list[_Slice], NDArray[np.float64]]:
    """Return the slices from first to last, and the step from each to the next, mm [3]."""
    normal = np.cross(*slices[0].directions)
    ordered = sorted(slices, key=lambda one: float(normal @ one.place))
    along = np.array([normal @ one.place for one in ordered])
    gaps = np.diff(along)
    if gaps.min() < SAME_PLACE_MM:
        at = int(gaps.argmin())
        text = f"{ordered[at].path.name} and {ordered[at + 1].path.name} lie at one place; remove one of them"
        raise refused("duplicate-slice", folder, text)
    usual = float(np.median(gaps))
    off = np.abs(gaps - usual) > EVEN * usual
    if off.any():
        at = int(off.argmax())
        below, above = ordered[at].path.name, ordered[at + 1].path.name
        text = (
            f"between {below} and {above} lie {gaps[at]:.2f} mm, between the others {usual:.2f} mm: "
            "a slice is missing, export the series again"
        )
        raise refused("missing-slice", folder, text)
    step = (ordered[-1].place - ordered[0].place) / (len(ordered) - 1)
    return ordered, step


def _pixels(one: _Slice) -> tuple[NDArray[np.float32], np.dtype[Any]]:
    """Return a slice as real values [columns, rows], and the type in which it is stored."""
    import pydicom

    try:
        found = pydicom.dcmread(one.path)
        stored = found.pixel_array
    except (NotImplementedError, RuntimeError) as exc:
        text = f"its pixels cannot be decoded ({exc}); install pylibjpeg, or export the series uncompressed"
        raise refused("compressed", one.path, text) from exc
    except (OSError, EOFError, ValueError, AttributeError, KeyError, TypeError) as exc:
        raise refused("truncated", one.path, f"its pixels end too early or are damaged ({exc}); copy it again") from exc
    if stored.shape != (one.shape[1], one.shape[0]):
        raise refused("not-numbers", one.path, f"expected grey pixels of {one.shape}, got {stored.shape}")
    slope, intercept = (
        float(getattr(found, f"Rescale{name}", usual)) for name, usual in (("Slope", 1), ("Intercept", 0))
    )
    return stored.T.astype(np.float32) * np.float32(slope) + np.float32(intercept), stored.dtype
