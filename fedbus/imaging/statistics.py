"""Statistics of a folder of studies for a data check: one study in memory at a time, numbers of it kept.

    centre   of a class, along AXES (left to right, back to front, down to up): 0 where the image begins, 1 at its end
    fit      of a mask: the share of the variance of intensities that its labels explain (correlation ratio, Roche et
             al. 1998), less that of the mask flipped along an axis; a mask that lies the wrong way round fits worse

A mask of one voxel or of a symmetric organ in the middle fits either way: then the fit is near 0 and says nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedbus.core.protocol.statistics import Images, Labels, Masks, Plan, Region, Spread, Statistics
from fedbus.errors import DataError, StudyError
from fedbus.imaging.problems import refused
from fedbus.imaging.studies import Studies, Study, find_studies
from fedbus.imaging.volumes import Volume, read_study, read_volume
from fedbus.statistics.arrays import counts_of, prints_of, spread_of

MOST_VOXELS: Final = 1 << 21
"""Of a study, so many are looked at for percentiles and fits: every second or third along each axis of a large one."""
FEW_SHAPES: Final = 16
log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Region:
    volumes: list[float] = field(default_factory=list)
    centres: list[tuple[float, ...]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What is kept of the studies that were read."""

    dtypes: list[str] = field(default_factory=list)
    orientations: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    sizes: list[tuple[int, ...]] = field(default_factory=list)
    spacings: list[tuple[float, ...]] = field(default_factory=list)
    percentiles: list[NDArray[np.float64]] = field(default_factory=list)
    masks: int = 0
    empty: int = 0
    values: Counter[int] = field(default_factory=Counter)
    regions: dict[int, _Region] = field(default_factory=dict)
    fits: list[list[float]] = field(default_factory=list)
    prints: list[str] = field(default_factory=list)


def folder_statistics(folder: Path, *, expected: Sequence[int], plan: Plan) -> Statistics:
    """Statistics of the studies in a folder; expected: the job's classes, the background among them.

    A folder without studies is a problem among the statistics and no error.
    """
    try:
        return studies_statistics(find_studies(folder), expected=expected, plan=plan)
    except StudyError as exc:
        log.warning("%s", exc)
        return Statistics(problems={exc.kind: plan.minimum})
    except DataError as exc:
        log.warning("%s", exc)
        return Statistics(problems={"no-studies": plan.minimum})  # one folder: it says nothing of a patient


def studies_statistics(studies: Studies, *, expected: Sequence[int], plan: Plan) -> Statistics:
    """Statistics of these studies; what is wrong with one is counted here and named in the site's log."""
    seen, problems = _Seen(), Counter(problem.kind for problem in studies.problems)
    for problem in studies.problems:
        log.warning("%s", problem)
    for study in studies.studies:
        try:
            _look(study, seen, plan)
        except StudyError as exc:
            log.warning("%s", exc)
            problems[exc.kind] += study.label is not None or exc.kind != "no-label"
    return Statistics(
        examples=len(studies.studies),
        labels=Labels(
            counts={str(value): seen.values[value] for value in sorted(seen.values)},
            expected=tuple(expected),
            of_masks=True,
        ),
        images=_images(seen),
        masks=_masks(seen),
        problems=dict(problems),
        copies=len(seen.prints) - len(set(seen.prints)),
        prints=tuple(dict.fromkeys(seen.prints)),
    )


def _look(study: Study, seen: _Seen, plan: Plan) -> None:
    if study.label is None:
        image: Volume = read_volume(study.image).canonical()
        return _see_image(read_volume(study.image), image, seen, plan)
    image, label = read_study(study)
    _see_image(read_volume(study.image), image, seen, plan)
    return _see_mask(image, label.array, seen)


def _see_image(stored: Volume, image: Volume, seen: _Seen, plan: Plan) -> None:
    array = _thinned(image.array)
    if not np.isfinite(array).all():
        raise refused("not-numbers", Path("image"), "it holds NaN or infinity")
    seen.dtypes.append(str(stored.dtype.newbyteorder("=")))
    seen.orientations.append(stored.orientation)
    seen.shapes.append("x".join(map(str, image.array.shape)))
    seen.sizes.append(image.array.shape)
    seen.spacings.append(image.spacing)
    seen.percentiles.append(np.percentile(array, (1, 50, 99)))
    seen.prints += prints_of([_standard(image.array)], salt=plan.salt)


def _standard(array: NDArray[Any]) -> NDArray[np.float64]:
    """What survives another scale of the intensities: their ranks, coarsely, and the shape."""
    values = array.astype(np.float64)
    low, high = np.percentile(values, (1, 99))
    scaled: NDArray[np.float64] = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    coarse = scaled[::2, ::2, ::2] if scaled.size > MOST_VOXELS else scaled
    return np.round(coarse * 8)


def _see_mask(image: Volume, mask: NDArray[np.uint8], seen: _Seen) -> None:
    values, times = np.unique(mask, return_counts=True)
    seen.masks += 1
    seen.values.update(values.tolist())
    inside = [(int(value), int(count)) for value, count in zip(values, times, strict=True) if value]
    seen.empty += not inside
    millilitres = float(np.prod(image.spacing)) / 1000
    for value, count in inside:
        region = seen.regions.setdefault(value, _Region())
        region.volumes.append(count * millilitres)
        region.centres.append(_centre(mask == value))
    if len(values) > 1:
        seen.fits.append(_fits(_thinned(image.array), _thinned(mask)))


def _centre(region: NDArray[np.bool_]) -> tuple[float, ...]:
    """The mean place of a region, as a share of each axis."""
    shares = []
    for axis, length in enumerate(region.shape):
        profile = region.sum(axis=tuple(other for other in range(region.ndim) if other != axis), dtype=np.float64)
        shares.append(float((profile @ (np.arange(length) + 0.5)) / profile.sum() / length))
    return tuple(shares)


def _fits(image: NDArray[Any], mask: NDArray[np.uint8]) -> list[float]:
    """How much better a mask explains the intensities than its mirror image does, along each axis."""
    values = image.astype(np.float64) - float(image.mean())
    total = float((values**2).sum())
    if total <= 0:
        return [float("nan")] * mask.ndim
    own = _explained(values, mask) / total
    return [own - _explained(values, np.flip(mask, axis)) / total for axis in range(mask.ndim)]


def _explained(values: NDArray[np.float64], mask: NDArray[np.uint8]) -> float:
    sums = np.bincount(mask.reshape(-1), weights=values.reshape(-1))
    counts = np.bincount(mask.reshape(-1))
    return float((sums[counts > 0] ** 2 / counts[counts > 0]).sum())


def _thinned(array: NDArray[Any]) -> NDArray[Any]:
    step = max(1, int(np.ceil((array.size / MOST_VOXELS) ** (1 / 3))))
    return array[::step, ::step, ::step]


def _images(seen: _Seen) -> Images:
    percentiles = np.array(seen.percentiles).reshape(-1, 3)
    return Images(
        dtypes=counts_of(seen.dtypes),
        orientations=counts_of(seen.orientations),
        shapes=_common(seen.shapes),
        size=_by_axis(seen.sizes),
        spacing=_by_axis(seen.spacings),
        intensity={name: spread_of(percentiles[:, at]) for at, name in enumerate(("p1", "p50", "p99"))},
    )


def _masks(seen: _Seen) -> Masks:
    return Masks(
        empty=seen.empty,
        regions={
            str(value): Region(
                studies=len(region.volumes), volume=spread_of(region.volumes), centre=_by_axis(region.centres)
            )
            for value, region in sorted(seen.regions.items())
        },
        fits=_by_axis(seen.fits),
    )


def _by_axis(rows: Iterable[Sequence[float]]) -> tuple[Spread, ...]:
    array = np.array(list(rows), dtype=np.float64).reshape(-1, 3)
    return tuple(spread_of(array[:, axis]) for axis in range(3))


def _common(shapes: Sequence[str]) -> dict[str, int]:
    """The most frequent shapes, and all others in one: a shape that one study has would tell it from the rest."""
    frequent = dict(Counter(shapes).most_common(FEW_SHAPES))
    rest = len(shapes) - sum(frequent.values())
    return frequent | ({"other": rest} if rest else {})
