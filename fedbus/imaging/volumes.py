"""One study as an array with its place in space: from a NIfTI file, or from a folder with one DICOM series (`series`).

    array   [X, Y, Z], the stored values after the file's own slope and intercept
    affine  float64 [4, 4], from voxel to scanner coordinates in mm; x to the right, y to the front, z up (RAS+)

A header is believed only so far: it may not ask for more than MOST_BYTES, nor for more than its file can hold.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedbus.errors import MissingPackageError
from fedbus.imaging.problems import refused
from fedbus.imaging.studies import Study

MOST_BYTES: Final = 4 << 30
"""Of one study in memory, as float32: 1024^3 voxels."""
BEST_COMPRESSION: Final = 1040
"""Bytes that one byte of a gzip file can become (RFC 1951: 258 bytes in two bits and a little)."""
SAME_PLACE: Final = 0.5
"""Voxels by which corners of a label and of its image may differ: half a voxel moves no border."""
SPACING_MM: Final = (1e-3, 100.0)
COMPARED: Final = 3


@dataclass(frozen=True, kw_only=True)
class Volume:
    """array [X, Y, Z]; affine float64 [4, 4], voxel to mm in RAS+; dtype: what the file stores."""

    array: NDArray[Any]
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between voxels along each axis of the array."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return x, y, z

    @cached_property
    def orientation(self) -> str:
        """Where the axes lead, such as RAS: to the right, to the front, up."""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(self.affine))

    def canonical(self) -> Volume:
        """The same voxels with the axes turned and flipped until they lead to RAS; no voxel is made up."""
        from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

        turn = io_orientation(self.affine)
        if (turn == [[0, 1], [1, 1], [2, 1]]).all():
            return self
        affine = self.affine @ inv_ornt_aff(turn, self.array.shape)
        return Volume(array=apply_orientation(self.array, turn), affine=affine, dtype=self.dtype)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file, or a folder with one DICOM series.

    Raises StudyError, whose text names the file; MissingPackageError when the extra is not installed.
    """
    if path.is_dir():
        from fedbus.imaging.series import read_series

        return read_series(path)
    return _read_nifti(path)


def read_study(study: Study) -> tuple[Volume, Volume]:
    """Read a study's image and label, both turned to RAS, in the same space; the label's array is uint8.

    Raises StudyError as `read_volume`, and for a label that does not fit its image.
    """
    if study.label is None:
        raise refused("no-label", study.image, "there is no label for it")
    image, label = read_volume(study.image).canonical(), read_volume(study.label).canonical()
    if image.array.shape != label.array.shape:
        text = f"its shape is {label.array.shape}, that of the image {image.array.shape}"
        raise refused("shape-mismatch", study.label, text)
    apart = _voxels_apart(image, label)
    if apart > SAME_PLACE:
        text = f"its corners lie up to {apart:.1f} voxels from those of the image: was one resampled or flipped?"
        raise refused("affine-mismatch", study.label, text)
    return image, Volume(array=_whole_numbers(label.array, study.label), affine=label.affine, dtype=label.dtype)


def checked(affine: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """Return an affine that a scanner may have; StudyError else."""
    good = affine.shape == (4, 4) and bool(np.isfinite(affine).all())
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)) if good else np.zeros(COMPARED)
    low, high = SPACING_MM
    if not (good and (sizes >= low).all() and (sizes <= high).all()):
        text = (
            f"expected a spacing of {low} to {high} mm along each axis, its header says {np.round(sizes, 6).tolist()}"
        )
        raise refused("bad-geometry", path, text)
    if abs(np.linalg.det(affine[:3, :3] / sizes)) < 0.1:
        raise refused("bad-geometry", path, "its axes do not span space; the orientation in its header is broken")
    return affine


def check_size(shape: tuple[int, ...], path: Path) -> None:
    """Raise StudyError for a shape that is no volume, or that would not fit."""
    if len(shape) != COMPARED or min(shape) < 1:
        text = f"expected three dimensions, its shape is {shape}: keep one volume of it (one time point, one modality)"
        raise refused("not-3d", path, text)
    if 4 * prod(shape) > MOST_BYTES:
        raise refused("too-large", path, f"its shape {shape} would take more than {MOST_BYTES >> 30} GiB")


@contextmanager
def needed(what: str) -> Iterator[None]:
    """Say what to install when a package of the extra is not there."""
    try:
        yield
    except ImportError as exc:
        raise MissingPackageError(what, extra="monai", why=exc) from exc


def _read_nifti(path: Path) -> Volume:
    with needed("reading NIfTI files"):
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
    try:
        image = nibabel.load(path)
        shape = _three(tuple(map(int, image.shape)))
        stored = image.get_data_dtype()
        check_size(shape, path)
        _check_room(path, shape, stored)
        affine = checked(np.asarray(image.affine, dtype=np.float64), path)
        array = np.asanyarray(image.dataobj).reshape(shape)
    except (EOFError, zlib.error) as exc:
        raise refused("truncated", path, f"it ends too early or is damaged ({exc}); copy it again") from exc
    except (OSError, ValueError, ImageFileError, HeaderDataError, OverflowError, MemoryError) as exc:
        kind = "truncated" if _is_short(exc) else "unreadable"
        raise refused(kind, path, f"it cannot be read as NIfTI ({exc}); copy or convert it again") from exc
    return Volume(array=_narrow(array), affine=affine, dtype=np.dtype(stored))


def _three(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without dimensions of length 1 after the third."""
    while len(shape) > COMPARED and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _check_room(path: Path, shape: tuple[int, ...], stored: np.dtype[Any]) -> None:
    if stored.kind not in "iuf":
        raise refused("not-numbers", path, f"its voxels are of type {stored}; expected integers or floats")
    asked, held = prod(shape) * stored.itemsize, path.stat().st_size
    most = held * BEST_COMPRESSION if path.name.lower().endswith(".gz") else held
    if asked > most:
        text = f"its header promises {asked:,} bytes of voxels and the file has {held:,}; copy it again"
        raise refused("truncated", path, text)


def _is_short(exc: BaseException) -> bool:
    """Say whether a reader's words are those for a file that ended too early; nibabel has no type for it."""
    return any(word in str(exc) for word in ("Expected", "end-of-stream", "Empty file"))


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    """float64 as float32: what a scaled file becomes costs half."""
    return array.astype(np.float32) if array.dtype.kind == "f" and array.dtype.itemsize > 4 else array


def _whole_numbers(array: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise refused("label-values", path, "its voxels are no whole numbers; expected class values such as 0, 1, 2")
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise refused("label-values", path, f"its values run from {low} to {high}; expected classes from 0 to 255")
    return array.astype(np.uint8)


def _voxels_apart(image: Volume, label: Volume) -> float:
    """How far the corners of two volumes of one shape lie apart, in voxels of the image."""
    ends = np.array([(x, y, z, 1.0) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    ends[:, :3] *= np.array(image.array.shape) - 1
    apart = ends @ (image.affine - label.affine).T
    return float(np.sqrt((apart[:, :3] ** 2).sum(axis=1)).max() / min(image.spacing))
