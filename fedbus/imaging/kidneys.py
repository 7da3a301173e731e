"""Synthetic "kidney" studies of three hospitals whose scanners differ: no patient's data, made in a second.

A study is a block of tissue of 96 x 64 x 64 mm with spots of fat, two kidneys (ellipsoids, turned a little) and one
tumour at the border of one of them, in Hounsfield units. The scanners differ in voxel size, noise, gain and
offset (SCANNERS). Folders are KiTS's: case_00000/imaging.nii.gz and segmentation.nii.gz with 1 kidney, 2 tumour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedbus.errors import DataError
from fedbus.imaging.volumes import needed

EXTENT_MM: Final = (96.0, 64.0, 64.0)
CLASSES: Final = {1: "kidney", 2: "tumour"}
TISSUE, FAT, KIDNEY, TUMOUR = 40.0, -80.0, 190.0, 110.0
MOST_STUDIES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """How a hospital's scanner shows tissue: voxel size in mm, noise in HU, and gain * HU + offset."""

    spacing: tuple[float, float, float]
    noise: float
    gain: float
    offset: float


SCANNERS: Final = {
    "site-a": Scanner(spacing=(2.0, 2.0, 2.0), noise=15.0, gain=1.0, offset=0.0),
    "site-b": Scanner(spacing=(1.6, 1.6, 2.5), noise=25.0, gain=1.06, offset=-8.0),
    "site-c": Scanner(spacing=(2.4, 2.4, 2.0), noise=20.0, gain=0.94, offset=10.0),
}


def write_kidneys(folder: Path, *, studies: int = 24, seed: int = 0) -> dict[str, int]:
    """Write `studies` of each scanner's hospital to `folder`/SITE; return studies per site."""
    if not 1 <= studies <= MOST_STUDIES:
        raise DataError(f"expected 1 to {MOST_STUDIES} studies per site, got {studies}")
    for number, (site, scanner) in enumerate(SCANNERS.items()):
        rng = np.random.default_rng([seed, number])
        for study in range(studies):
            image, label = draw_study(scanner, rng)
            write_study(folder / site / f"case_{study:05d}", image, label, scanner.spacing)
    return dict.fromkeys(SCANNERS, studies)


def draw_study(scanner: Scanner, rng: np.random.Generator) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw one study: image in HU, int16 [X, Y, Z], and label uint8 [X, Y, Z]."""
    shape = [round(mm / size) for mm, size in zip(EXTENT_MM, scanner.spacing, strict=True)]
    axes = [np.arange(n, dtype=np.float32) * size for n, size in zip(shape, scanner.spacing, strict=True)]
    mm = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    hu = np.full(shape, TISSUE, dtype=np.float32)
    for _ in range(4):
        hu[_ellipsoid(mm, rng.uniform((0, 0, 0), EXTENT_MM), rng.uniform(5, 12, 3), rng)] = FAT
    label = np.zeros(shape, dtype=np.uint8)
    middles = [np.array([x * EXTENT_MM[0], 32.0, 32.0]) + rng.uniform(-4, 4, 3) for x in (0.27, 0.73)]
    for middle in middles:
        label[_ellipsoid(mm, middle, rng.uniform((11, 13, 16), (14, 17, 21)), rng)] = 1
    label[_ellipsoid(mm, _at_border(middles[rng.integers(2)], rng), rng.uniform(8, 12, 3), rng)] = 2
    hu[label == 1], hu[label == 2] = KIDNEY, TUMOUR
    seen = hu * scanner.gain + scanner.offset + rng.normal(0, scanner.noise, shape)
    return seen.round().astype(np.int16), label


def write_study(case: Path, image: NDArray[Any], label: NDArray[Any], spacing: tuple[float, float, float]) -> None:
    """Write one study as KiTS has it."""
    with needed("writing NIfTI files"):
        import nibabel
    case.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing, 1.0])
    for name, array in (("imaging", image), ("segmentation", label)):
        nibabel.save(nibabel.Nifti1Image(array, affine), case / f"{name}.nii.gz")


def _at_border(middle: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    towards = rng.normal(size=3)
    found: NDArray[np.float64] = middle + towards / np.linalg.norm(towards) * rng.uniform(8, 13)
    return found


def _ellipsoid(
    mm: NDArray[np.float32], middle: NDArray[np.float64], radii: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Where an ellipsoid lies, bool [X, Y, Z], turned a little about the z axis."""
    angle = rng.uniform(-0.4, 0.4)
    x, y, z = np.moveaxis(mm - middle.astype(np.float32), -1, 0)
    turned = (x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), z)
    squares = sum((part / np.float32(radius)) ** 2 for part, radius in zip(turned, radii, strict=True))
    inside: NDArray[np.bool_] = np.asarray(squares) <= 1
    return inside
