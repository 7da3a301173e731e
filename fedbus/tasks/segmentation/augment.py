"""One training patch of a case: where it is cut out, and how it is changed at random, drawn anew for each step.

Everything follows from the generator that is handed in. Arrays [X, Y, Z]; the case's own are never written to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedbus.tasks.segmentation.cases import Case
from fedbus.tasks.segmentation.config import AffineSpec, AugmentSpec, SegmentationConfig

AXES = {"x": 0, "y": 1, "z": 2}


def draw_patch(case: Case, config: SegmentationConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a patch of the job's size: image fp32 [1, X, Y, Z] and channels uint8 [X, Y, Z]."""
    start = _start(case, config, rng)
    image = cut(case.image, start, config.patch_size, case.floor)
    label = cut(case.label, start, config.patch_size, 0)
    return augmented(torch.from_numpy(image), torch.from_numpy(label), config.augment, rng, spacing=case.spacing)


def cut(array: NDArray[Any], start: Sequence[int], size: Sequence[int], outside: float) -> NDArray[Any]:
    """Copy a box of `size` that begins at `start` (which may be negative); what is not in the array is `outside`."""
    out = np.full(tuple(size), outside, dtype=array.dtype)
    begin = [max(0, at) for at in start]
    end = [min(n, at + wide) for n, at, wide in zip(array.shape, start, size, strict=True)]
    source = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
    target = tuple(slice(a - at, b - at) for a, b, at in zip(begin, end, start, strict=True))
    out[target] = array[source]
    return out


def augmented(
    image: Tensor, label: Tensor, spec: AugmentSpec, rng: np.random.Generator, *, spacing: Sequence[float] = (1, 1, 1)
) -> tuple[Tensor, Tensor]:
    """Change a patch (image fp32, label uint8, both [X, Y, Z]) as the job says; return [1, X, Y, Z] and [X, Y, Z]."""
    if spec.affine and rng.random() < spec.affine.p:
        image, label = _turned(image, label, spec.affine, rng, spacing)
    if spec.flip:
        axes = [AXES[axis] for axis in spec.flip.axes if rng.random() < spec.flip.p]
        image, label = image.flip(axes), label.flip(axes)
    if spec.intensity and rng.random() < spec.intensity.p:
        scale, shift = rng.uniform(-1, 1, 2) * (spec.intensity.scale, spec.intensity.shift)
        image = image * (1 + scale) + shift
    if spec.noise and rng.random() < spec.noise.p:
        std = np.float32(rng.uniform(0, spec.noise.std))
        image = image + torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32) * std)
    return image[None].float(), label


def _start(case: Case, config: SegmentationConfig, rng: np.random.Generator) -> list[int]:
    """Where a patch begins: around a labelled voxel (its class drawn first), or anywhere."""
    places = [n - side for n, side in zip(case.image.shape, config.patch_size, strict=True)]
    if case.middles and rng.random() < config.foreground:
        voxels = case.middles[list(case.middles)[rng.integers(len(case.middles))]]
        middle = voxels[rng.integers(len(voxels))].tolist()
    else:
        middle = [int(rng.integers(n)) for n in case.image.shape]
    starts = []
    for at, side, places_left in zip(middle, config.patch_size, places, strict=True):
        low, high = min(0, places_left), max(0, places_left)
        jitter = int(rng.integers(-(side // 8), side // 8 + 1))
        starts.append(places_left // 2 if places_left <= 0 else min(max(at - side // 2 + jitter, low), high))
    return starts


def _turned(
    image: Tensor, label: Tensor, spec: AffineSpec, rng: np.random.Generator, spacing: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Turn and scale about the patch's middle; image by trilinear, label by nearest voxel; the border goes on."""
    x, y, z = np.deg2rad(rng.uniform(-spec.degrees, spec.degrees, 3))
    turn = _about(0, x) @ _about(1, y) @ _about(2, z) * (1 + rng.uniform(-spec.scale, spec.scale))
    # in mm, so that a turn is one where slices are thick; torch's grids run z, y, x and from -1 to 1 on each axis
    sides = np.array(image.shape[::-1]) * np.array(spacing[::-1], dtype=np.float64)
    theta = np.zeros((1, 3, 4), dtype=np.float32)
    theta[0, :, :3] = turn * sides[None, :] / sides[:, None]
    grid = functional.affine_grid(torch.from_numpy(theta), [1, 1, *image.shape], align_corners=False)

    def sampled(values: Tensor, mode: str) -> Tensor:
        return functional.grid_sample(
            values[None, None].float(), grid, mode=mode, padding_mode="border", align_corners=False
        )[0, 0]

    return sampled(image, "bilinear"), sampled(label, "nearest").to(label.dtype)


def _about(axis: int, angle: float) -> NDArray[np.float64]:
    """Rotation [3, 3] about one axis."""
    a, b = [other for other in range(3) if other != axis]
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = math.cos(angle)
    turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
    return turn
