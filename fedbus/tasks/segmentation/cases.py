"""What a site prepares once: each labelled study as arrays of the job's spacing, intensity and channels, and the split.

Whatever is the same at every step is done here and kept: in memory up to MOST_RAM_BYTES, what is more in a file without
a name, which the system frees with the process however it ends.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fedbus.errors import StudyError
from fedbus.imaging.problems import counted, refused, shown, told
from fedbus.imaging.studies import Studies, Study, find_studies
from fedbus.imaging.volumes import check_size, read_study
from fedbus.tasks.segmentation.config import (
    Normalisation,
    PercentileSpec,
    SegmentationConfig,
    ValidationSpec,
    WindowSpec,
    ZScoreSpec,
)

log = logging.getLogger(__name__)

MOST_RAM_BYTES: Final = 4 << 30
MIDDLES: Final = 512
"""Voxels of each class that are kept as middles of patches."""
TELL_EVERY_S: Final = 15.0
FEWEST: Final = 2
"""Studies with which a site can train and be scored."""
WRONG_SHARE: Final = 0.5
"""Share of studies with values outside the job's classes from which on the site's labels are taken for other ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One study, prepared. image fp32 [X, Y, Z]; label uint8 [X, Y, Z], 0 or a channel; spacing in mm.

    middles: by channel, int32 [k, 3], some of its voxels. floor: the darkest value, which stands for what is outside.
    """

    id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    middles: dict[int, NDArray[np.int32]]
    floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A site's cases. labelled: the channels that this site annotates, ascending."""

    train: tuple[Case, ...]
    test: tuple[Case, ...]
    labelled: tuple[int, ...]


def prepare_site(folder: Path, config: SegmentationConfig, *, most_ram_bytes: int = MOST_RAM_BYTES) -> Prepared:
    """Read, check and prepare every labelled study of a site's folder.

    A study that cannot be used is left out, with a line in the log that names its file. Raises StudyError when fewer
    than two are left, or when most labels have values that are no classes of the job.
    """
    studies = find_studies(folder)
    for line in told(studies.problems):
        log.warning("%s", line)
    shelf, cases, bad = _Shelf(most_ram_bytes), [], []
    told_at = time.monotonic()
    for number, study in enumerate(studies.labelled):
        if time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            log.info("%d of %d studies are prepared", number, len(studies.labelled))
        try:
            cases.append(shelf.keep(prepare(study, config)))
        except StudyError as exc:
            bad.append(exc)
    for line in told(bad):
        log.warning("%s", line)
    _check_enough(studies, len(cases), bad)
    train, test = split(cases, config.validation)
    labelled = _labelled(studies, cases, config)
    log.info(
        "%d studies to train on, %d to test on, %d left out; classes labelled here: %s",
        *(len(train), len(test), len(bad), ", ".join(name for at, name in _channels(config) if at in labelled)),
    )
    return Prepared(train=train, test=test, labelled=labelled)


def prepare(study: Study, config: SegmentationConfig) -> Case:
    """Read one study and bring it to the job's spacing, intensity and channels; StudyError for what cannot be used."""
    image, label = read_study(study)
    channels = _to_channels(label.array, config, study)
    voxels = np.nan_to_num(np.ascontiguousarray(image.array, dtype=np.float32), copy=False, posinf=0.0, neginf=0.0)
    spacing = image.spacing
    if config.spacing is not None:
        shape = tuple(
            max(1, round(n * was / now)) for n, was, now in zip(voxels.shape, spacing, config.spacing, strict=True)
        )
        check_size(shape, study.image)
        voxels, channels = _resized(voxels, shape, "trilinear"), _resized(channels, shape, "nearest-exact")
        spacing = (config.spacing[0], config.spacing[1], config.spacing[2])
    voxels = normalised(voxels, config.intensity)
    middles = {at: _middles(channels, at) for at in np.unique(channels).tolist() if at}
    return Case(id=study.id, image=voxels, label=channels, spacing=spacing, middles=middles, floor=float(voxels.min()))


def normalised(voxels: NDArray[np.float32], spec: Normalisation) -> NDArray[np.float32]:
    """Return the voxels as the job's intensity rule wants them; one of a flat image becomes 0."""
    match spec:
        case ZScoreSpec():
            seen = voxels[voxels != 0] if spec.nonzero else voxels
            mean, std = (float(seen.mean(dtype=np.float64)), float(seen.std(dtype=np.float64))) if seen.size else (0, 0)
            found = np.clip((voxels - np.float32(mean)) / np.float32(std or 1.0), -spec.clip, spec.clip)
        case PercentileSpec():
            low, high = np.percentile(voxels, [spec.low, spec.high])
            found = np.clip((voxels - np.float32(low)) / np.float32((high - low) or 1.0), 0, 1)
        case WindowSpec():
            found = np.clip((voxels - np.float32(spec.low)) / np.float32(spec.high - spec.low), 0, 1)
    return np.asarray(found, dtype=np.float32)


def split(cases: Sequence[Case], spec: ValidationSpec) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Return (train, test). The side of a study follows from its id alone, so that it stays there when others come.

    Only where chance would leave a side nearly empty (ten studies), the studies of the lowest numbers fill it.
    """
    ordered = sorted(cases, key=lambda case: _number(case.id, spec.split_seed))
    if spec.folds is not None:
        chosen = [case for case in ordered if _number(case.id, spec.split_seed) % spec.folds == spec.fold]
    else:
        least = max(1, round(spec.share * len(cases) / 2))
        chosen = [
            case
            for at, case in enumerate(ordered)
            if at < least or _number(case.id, spec.split_seed) < spec.share * 2**64
        ]
    chosen = chosen[: len(ordered) - 1] or ordered[:1]
    kept = {case.id for case in chosen}
    return tuple(case for case in cases if case.id not in kept), tuple(case for case in cases if case.id in kept)


def _number(study: str, seed: int) -> int:
    """A number of 64 bits for a study."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{study}".encode()).digest()[:8], "big")


def _channels(config: SegmentationConfig) -> Iterable[tuple[int, str]]:
    return enumerate(config.names.values(), start=1)


def _to_channels(label: NDArray[np.uint8], config: SegmentationConfig, study: Study) -> NDArray[np.uint8]:
    """Label values as channels 0, 1, 2, ...; StudyError for a value that is no class."""
    found = np.flatnonzero(np.bincount(label.ravel(), minlength=256)).tolist()
    if wrong := sorted(set(found) - {0, *config.names}):
        known = ", ".join(f"{value} {name}" for value, name in config.names.items())
        text = f"it has the values {wrong[:10]}; the job's classes are 0 background, {known}"
        raise refused("label-values", study.label or study.image, text)
    table = np.zeros(256, np.uint8)
    for channel, value in enumerate(config.names, start=1):
        table[value] = channel
    return table[label]


def _resized(array: NDArray[Any], shape: Sequence[int], mode: str) -> NDArray[Any]:
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None, None]
    return functional.interpolate(tensor.float(), size=tuple(shape), mode=mode)[0, 0].to(tensor.dtype).numpy()


def _middles(channels: NDArray[np.uint8], channel: int) -> NDArray[np.int32]:
    """Up to MIDDLES voxels of a channel, evenly drawn from all of them, int32 [k, 3]."""
    flat = np.flatnonzero(channels == channel)
    flat = flat[np.linspace(0, len(flat) - 1, min(MIDDLES, len(flat))).astype(np.int64)]
    return np.stack(np.unravel_index(flat, channels.shape), axis=1).astype(np.int32)


def _labelled(studies: Studies, cases: Sequence[Case], config: SegmentationConfig) -> tuple[int, ...]:
    """Channels that this site annotates: those its dataset.json lists, else those that any of its labels has."""
    found = {channel for case in cases for channel in case.middles}
    values = tuple(config.names)
    if studies.labels:
        found |= {at for at, value in enumerate(values, start=1) if value in studies.labels}
    for at, value in enumerate(values, start=1):
        theirs = studies.labels.get(value, config.names[value])
        if theirs.lower() != config.names[value].lower():
            log.warning("dataset.json calls value %d %s, the job calls it %s", value, theirs, config.names[value])
        if at not in found:
            log.warning("no study here has class %d (%s): it is not trained as background", value, config.names[value])
    if not found:
        text = f"{studies.folder}: no label has any voxel of a class: are the masks empty?"
        raise StudyError("label-values", text, said="no label of this site has any voxel of a class")
    return tuple(sorted(found))


def _check_enough(studies: Studies, good: int, bad: Sequence[StudyError]) -> None:
    kinds = [*(problem.kind for problem in studies.problems), *(exc.kind for exc in bad)]
    total = len(studies.labelled)
    wrong = sum(exc.kind == "label-values" for exc in bad)
    if total and wrong >= WRONG_SHARE * total:
        text = f"{wrong} of {total} labels have values that are no classes of the job"
        example = next(exc for exc in bad if exc.kind == "label-values")
        raise StudyError("label-values", f"{studies.folder}: {text}; such as {example}", said=text)
    if good < FEWEST:
        said = f"expected at least {FEWEST} studies with labels, {good} can be used; found: {counted(kinds) or 'none'}"
        raise StudyError("no-studies", f"{shown(studies.folder)}: {said}; see the lines above", said=said)


class _Shelf:
    """Keeps the arrays of cases, in memory as long as they fit. A mapped array costs a file descriptor."""

    def __init__(self, most_ram_bytes: int) -> None:
        self._room = most_ram_bytes

    def keep(self, case: Case) -> Case:
        """Return the case with its arrays where they stay."""
        size = case.image.nbytes + case.label.nbytes
        if size <= self._room:
            self._room -= size
            return case
        image, label = self._written(case.image), self._written(case.label)
        return Case(id=case.id, image=image, label=label, spacing=case.spacing, middles=case.middles, floor=case.floor)

    def _written(self, array: NDArray[Any]) -> Any:
        with tempfile.TemporaryFile(prefix="fedbus-") as file:
            np.ascontiguousarray(array).tofile(file)
            file.flush()
            return np.memmap(file, dtype=array.dtype, mode="r", shape=array.shape)
