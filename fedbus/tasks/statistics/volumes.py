"""Statistics of a folder of studies for a data check: one study in memory at a time, numbers of it kept.

    centre   of a class, along AXES (left to right, back to front, down to up): 0 where the image begins, 1 at its end
    fit      of a mask: the share of the variance of intensities that its labels explain (correlation ratio, Roche et
             al. 1998), less that of the mask flipped along an axis; a mask that lies the wrong way round fits worse

A mask of one voxel or of a symmetric organ in the middle fits either way: then the fit is near 0 and says nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedbus.core.protocol.statistics import Distribution, Images, Labels, Masks, Plan, Region, Statistics
from fedbus.errors import DataError, StudyError
from fedbus.imaging.problems import Problem, refused, told
from fedbus.imaging.studies import Studies, Study, find_studies
from fedbus.imaging.volumes import Volume, read_study, read_volume
from fedbus.tasks.statistics.arrays import counts_of, distribution_of, prints_of

MOST_VOXELS: Final = 1 << 21
"""Of a study, so many are looked at for percentiles and fits: every second or third along each axis of a large one."""
FEW_SHAPES: Final = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One study that was read, turned to RAS; mask [X, Y, Z] of class values, None without one.

    orientation: as the file has it.
    """

    image: Volume
    mask: NDArray[np.uint8] | None = None
    orientation: str = "RAS"


@dataclass(slots=True, kw_only=True)
class _Region:
    volumes: list[float] = field(default_factory=list)
    centres: list[tuple[float, ...]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Kept:
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
    bad: list[StudyError] = []
    found = volumes_statistics(_read(studies.studies, bad), expected=expected, plan=plan)
    wrong: list[Problem | StudyError] = [*studies.problems, *bad]
    for line in told(wrong):
        log.warning("%s", line)
    return replace(found, examples=len(studies.studies), problems=dict(Counter(one.kind for one in wrong)))


def volumes_statistics(volumes: Iterable[Seen], *, expected: Sequence[int], plan: Plan) -> Statistics:
    """Statistics of studies that are read one after the other."""
    kept = _Kept()
    for seen in volumes:
        _keep_image(seen, kept, plan)
        if seen.mask is not None:
            _keep_mask(seen.image, seen.mask, kept)
    labels = {str(value): kept.values[value] for value in sorted(kept.values)}
    return Statistics(
        examples=len(kept.dtypes),
        labels=Labels(counts=labels, expected=tuple(expected), of_masks=True),
        images=_images(kept),
        masks=_masks(kept),
        copies=len(kept.prints) - len(set(kept.prints)),
        prints=tuple(dict.fromkeys(kept.prints)),
    )


def _read(studies: Iterable[Study], bad: list[StudyError]) -> Iterator[Seen]:
    for study in studies:
        try:
            if study.label is None:
                image, mask = read_volume(study.image).canonical(), None
            else:
                image, label = read_study(study)
                mask = label.array
            if not np.isfinite(_thinned(image.array)).all():
                raise refused("not-numbers", study.image, "it holds NaN or infinity")
            seen = Seen(image=image, mask=mask, orientation=_orientation(study.image))
        except StudyError as exc:
            bad.append(exc)
        else:
            yield seen


def _orientation(path: Path) -> str:
    """As the file has it, before it was turned to RAS."""
    if path.is_dir():
        return read_volume(path).orientation
    import nibabel

    return "".join(nibabel.orientations.aff2axcodes(nibabel.load(path).affine))  # reads the header alone


def _keep_image(seen: Seen, kept: _Kept, plan: Plan) -> None:
    image = seen.image
    kept.dtypes.append(str(image.dtype.newbyteorder("=")))
    kept.orientations.append(seen.orientation)
    kept.shapes.append("x".join(map(str, image.array.shape)))
    kept.sizes.append(image.array.shape)
    kept.spacings.append(image.spacing)
    kept.percentiles.append(np.percentile(_thinned(image.array), (1, 50, 99)))
    kept.prints += prints_of([_standard(image.array)], salt=plan.salt)


def _standard(array: NDArray[Any]) -> NDArray[np.float64]:
    """What survives another scale of the intensities: their ranks, coarsely, and the shape."""
    values = array.astype(np.float64)
    low, high = np.percentile(values, (1, 99))
    scaled: NDArray[np.float64] = np.clip((values - low) / ((high - low) or 1.0), 0, 1)
    coarse = scaled[::2, ::2, ::2] if scaled.size > MOST_VOXELS else scaled
    return np.round(coarse * 8)


def _keep_mask(image: Volume, mask: NDArray[np.uint8], kept: _Kept) -> None:
    values, times = np.unique(mask, return_counts=True)
    kept.masks += 1
    kept.values.update(values.tolist())
    inside = [(int(value), int(count)) for value, count in zip(values, times, strict=True) if value]
    kept.empty += not inside
    millilitres = float(np.prod(image.spacing)) / 1000
    for value, count in inside:
        region = kept.regions.setdefault(value, _Region())
        region.volumes.append(count * millilitres)
        region.centres.append(_centre(mask == value))
    if len(values) > 1:
        kept.fits.append(_fits(_thinned(image.array), _thinned(mask)))


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


def _images(kept: _Kept) -> Images:
    percentiles = np.array(kept.percentiles).reshape(-1, 3)
    return Images(
        dtypes=counts_of(kept.dtypes),
        orientations=counts_of(kept.orientations),
        shapes=_common(kept.shapes),
        size=_by_axis(kept.sizes),
        spacing=_by_axis(kept.spacings),
        intensity={name: distribution_of(percentiles[:, at]) for at, name in enumerate(("p1", "p50", "p99"))},
    )


def _masks(kept: _Kept) -> Masks:
    return Masks(
        empty=kept.empty,
        regions={
            str(value): Region(
                studies=len(region.volumes), volume=distribution_of(region.volumes), centre=_by_axis(region.centres)
            )
            for value, region in sorted(kept.regions.items())
        },
        fits=_by_axis(kept.fits),
    )


def _by_axis(rows: Iterable[Sequence[float]]) -> tuple[Distribution, ...]:
    array = np.array(list(rows), dtype=np.float64).reshape(-1, 3)
    return tuple(distribution_of(array[:, axis]) for axis in range(3))


def _common(shapes: Sequence[str]) -> dict[str, int]:
    """The most frequent shapes, and all others in one: a shape that one study has would tell it from the rest."""
    frequent = dict(Counter(shapes).most_common(FEW_SHAPES))
    rest = len(shapes) - sum(frequent.values())
    return frequent | ({"other": rest} if rest else {})
