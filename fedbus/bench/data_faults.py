"""How often a data check finds what is planted in one site's data, and how often it names another site in vain.

Tables are those of the four hospitals, with what is true of them left as it is; digits are shared by four sites;
volumes are those of Task04 Hippocampus, in the split of its three intensity scales and in random thirds of the largest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from fedbus.bench.figures import Row, row
from fedbus.core.check.report import findings
from fedbus.core.protocol.statistics import Finding, Plan, Statistics, withheld
from fedbus.imaging.studies import Study, find_studies
from fedbus.imaging.volumes import Volume, read_study
from fedbus.tasks.digits import BRIGHTEST, CLASSES, load_digits_once
from fedbus.tasks.heart_disease import HeartDisease
from fedbus.tasks.heart_disease_data import FILE_NAME, HOSPITALS, write_site_data
from fedbus.tasks.shares import dirichlet_shares
from fedbus.tasks.statistics.pictures import picture_statistics
from fedbus.tasks.statistics.volumes import Seen, volumes_statistics
from fedbus.training.task import Site

PLAN = Plan(salt="5a" * 16)
CLASSES_OF_VOLUMES = (0, 1, 2)
Say = Callable[[str], None]
Rng = np.random.Generator
Cells = list[dict[str, str]]
Compared = Mapping[str, Statistics]


class Tally:
    """How often each fault was found, by kind, and in vain."""

    def __init__(self, *, say: Say) -> None:
        self._found: dict[str, list[tuple[bool, bool]]] = {}
        self._say = say

    def add(self, fault: str, sites: Compared, site: str, kind: str, known: Sequence[Finding] = ()) -> None:
        """One federation with a fault at `site`; kind: "" when nothing is planted. known: what is true without it."""
        true = {(one.kind, one.sites, one.text) for one in known}
        new = [one for one in findings(sites) if (one.kind, one.sites, one.text) not in true]
        told = [one for one in new if one.severity != "notice"]
        hit = any(one.kind == kind and site in one.sites for one in told)
        standing = {(one.kind, one.sites) for one in known}
        vain = [one for one in told if (not kind or site not in one.sites) and (one.kind, one.sites) not in standing]
        for one in vain:
            self._say(f"{fault} at {site}: in vain {one.kind}: {one.text} ({one.figure})")
        self._found.setdefault(fault, []).append((hit, bool(vain)))

    def rows(self) -> Iterator[Row]:
        """Two figures a fault."""
        for fault, tries in self._found.items():
            if not fault.endswith("clean"):
                yield row(f"{fault}: found", sum(hit for hit, _ in tries), f"of {len(tries)}")
            yield row(f"{fault}: named in vain", sum(vain for _, vain in tries), f"of {len(tries)}")


def rows(*, seeds: int, volumes: Path | None = None, say: Say = lambda text: None) -> list[Row]:
    """volumes: a folder with the studies of Task04 Hippocampus; None: without volumes."""
    tally = Tally(say=say)
    _tables(tally, seeds)
    _digits(tally, seeds)
    if volumes is not None:
        _volumes(tally, seeds, volumes)
    return list(tally.rows())


# ------------------------------------------------------------------ tables


def _tables(tally: Tally, seeds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="fedbus-data-faults-") as name:
        root = Path(name)
        for hospital in HOSPITALS:
            write_site_data(root / hospital, hospital)
        clean = {hospital: _of_table(root / hospital) for hospital in HOSPITALS}
        known = findings(clean)
        tally.add("table, clean", clean, "", "", known)
        for fault, (kind, change) in _TABLE_FAULTS.items():
            for seed in range(seeds):
                hospital = HOSPITALS[seed % len(HOSPITALS)]
                folder = root / "changed"
                _rewrite(root / hospital / FILE_NAME, folder / FILE_NAME, change, np.random.default_rng(seed))
                tally.add(f"table, {fault}", {**clean, hospital: _of_table(folder)}, hospital, kind, known)


def _of_table(folder: Path) -> Statistics:
    site = Site(name="site", data=folder, config={}, seed=0, device=torch.device("cpu"))
    return withheld(HeartDisease.statistics(site, PLAN), PLAN)


def _rewrite(source: Path, target: Path, change: Callable[[Cells, Rng], Cells], rng: Rng) -> None:
    header, *lines = source.read_text().splitlines()
    names = header.split(",")
    cells = change([dict(zip(names, line.split(","), strict=True)) for line in lines], rng)
    target.parent.mkdir(exist_ok=True)
    kept = list(cells[0])
    target.write_text("\n".join([",".join(kept), *(",".join(row[name] for name in kept) for row in cells)]) + "\n")


def _all_of(column: str, change: Callable[[float], str]) -> Callable[[Cells, Rng], Cells]:
    def changed(rows: Cells, rng: Rng) -> Cells:
        return [{**row, column: change(float(row[column])) if row[column] else ""} for row in rows]

    return changed


def _cholesterol_zero(rows: Cells, rng: Rng) -> Cells:
    return [{**row, "chol": "0"} for row in rows]


def _without_pressure(rows: Cells, rng: Rng) -> Cells:
    return [{name: cell for name, cell in row.items() if name != "trestbps"} for row in rows]


def _twice(rows: Cells, rng: Rng) -> Cells:
    return [*rows, *(rows[at] for at in rng.choice(len(rows), len(rows) // 5, replace=False))]


_TABLE_FAULTS: Mapping[str, tuple[str, Callable[[Cells, Rng], Cells]]] = {
    "labels from 1 on": ("one-based-labels", _all_of("num", lambda value: f"{value + 1:g}")),
    "cholesterol 0 in every row": ("never-measured", _cholesterol_zero),
    "no column of pressure": ("column-absent", _without_pressure),
    "pressure in kPa": ("impossible-values", _all_of("trestbps", lambda value: f"{value / 7.50062:.1f}")),
    "cholesterol halved": ("column-unit", _all_of("chol", lambda value: f"{value / 2:.0f}")),
    "sex as 1 and 2": ("impossible-codes", _all_of("sex", lambda value: f"{value + 1:g}")),
    "a fifth of the rows twice": ("copies", _twice),
}


# ------------------------------------------------------------------ digits


def _digits(tally: Tally, seeds: int) -> None:
    images, labels = (part.numpy() for part in load_digits_once())
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        shares = dirichlet_shares(labels, 4, 10.0, rng)
        data = {f"site-{at}": (images[share] * BRIGHTEST, labels[share]) for at, share in enumerate(shares, 1)}
        clean = {site: _of_digits(*own) for site, own in data.items()}
        tally.add("digits, clean", clean, "", "")
        site = f"site-{1 + seed % 4}"
        pixels, classes = data[site]
        other_pixels, other_classes = data[f"site-{1 + (seed + 1) % 4}"]
        most = int(np.bincount(classes).argmax())
        with_others = np.concatenate([pixels, other_pixels[:20]]), np.concatenate([classes, other_classes[:20]])
        for fault, kind, own in (
            ("labels from 1 on", "one-based-labels", (pixels, classes + 1)),
            (
                "class 11 among 10",
                "label-out-of-range",
                (pixels, np.where(rng.random(len(classes)) < 0.05, 11, classes)),
            ),
            ("a class missing", "missing-class", (pixels[classes != most], classes[classes != most])),
            ("pixels times 1,000", "intensity-scale", (pixels * 1000, classes)),
            ("20 of another site's", "same-examples", with_others),
        ):
            tally.add(f"digits, {fault}", {**clean, site: _of_digits(*own)}, site, kind)


def _of_digits(pixels: NDArray[np.float32], labels: NDArray[np.int64]) -> Statistics:
    return withheld(picture_statistics(pixels, labels, expected=range(CLASSES), plan=PLAN), PLAN)


# ------------------------------------------------------------------ volumes


def _volumes(tally: Tally, seeds: int, folder: Path) -> None:
    studies = [_seen(study) for study in find_studies(folder).labelled]
    scales: dict[str, list[Seen]] = {"low": [], "uint8": [], "high": []}
    for seen in studies:
        scales[scale_of(seen.image)].append(seen)
    clean = {site: _of_volumes(own) for site, own in scales.items()}
    tally.add("volumes by scale, clean", clean, "", "")
    for seed, site in enumerate(scales):
        _plant(tally, "volumes by scale", scales, clean, site=site, rng=np.random.default_rng(seed))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(scales["low"]))
        thirds = {f"site-{at + 1}": [scales["low"][i] for i in order[at::3]] for at in range(3)}
        clean = {site: _of_volumes(own) for site, own in thirds.items()}
        tally.add("volumes in thirds, clean", clean, "", "")
        _plant(tally, "volumes in thirds", thirds, clean, site=f"site-{1 + seed % 3}", rng=rng)


def scale_of(image: Volume) -> str:
    """Which of its three intensity scales a study of Task04 has: low, uint8 or high."""
    if image.dtype == np.uint8:
        return "uint8"
    return "high" if float(np.percentile(image.array, 99)) > 5000 else "low"


def _seen(study: Study) -> Seen:
    image, label = read_study(study)
    return Seen(image=image, mask=cast("NDArray[np.uint8]", label.array))


def _of_volumes(own: Sequence[Seen]) -> Statistics:
    return withheld(volumes_statistics(own, expected=CLASSES_OF_VOLUMES, plan=PLAN), PLAN)


def _plant(tally: Tally, what: str, data: Mapping[str, list[Seen]], clean: Compared, *, site: str, rng: Rng) -> None:
    other = next(name for name in data if name != site)
    for fault, (kind, change) in _VOLUME_FAULTS.items():
        own = [change(seen, rng) for seen in data[site]]
        tally.add(f"{what}, {fault}", {**clean, site: _of_volumes(own)}, site, kind)
    own = [*data[site], *(_times_1000(seen, rng) for seen in data[other][:10])]
    tally.add(f"{what}, 10 of another site's, times 1,000", {**clean, site: _of_volumes(own)}, site, "same-examples")


def _masked(seen: Seen, mask: NDArray[np.uint8]) -> Seen:
    return replace(seen, mask=mask)


def _mask(seen: Seen) -> NDArray[np.uint8]:
    return np.zeros(seen.image.array.shape, np.uint8) if seen.mask is None else seen.mask


def _times_1000(seen: Seen, rng: Rng) -> Seen:
    image = seen.image
    array = image.array.astype(np.float32) * 1000
    return replace(seen, image=Volume(array=array, affine=image.affine, dtype=np.dtype(np.float32)))


def _spaced(seen: Seen, factor: float) -> Seen:
    image = seen.image
    scale = np.diag([factor, factor, factor, 1.0])
    return replace(seen, image=Volume(array=image.array, affine=scale @ image.affine, dtype=image.dtype))


def _some(share: float, rng: Rng, seen: Seen, mask: NDArray[np.uint8]) -> Seen:
    return _masked(seen, mask) if rng.random() < share else seen


_VOLUME_FAULTS: Mapping[str, tuple[str, Callable[[Seen, Rng], Seen]]] = {
    "labels from 1 on": ("one-based-labels", lambda seen, rng: _masked(seen, _mask(seen) + np.uint8(1))),
    "classes 2 and 3": (
        "one-based-labels",
        lambda seen, rng: _masked(seen, _mask(seen) + (_mask(seen) > 0).astype(np.uint8)),
    ),
    "class 11 in a tenth of the masks": (
        "label-out-of-range",
        lambda seen, rng: _some(0.1, rng, seen, np.where(_mask(seen) == 2, 11, _mask(seen)).astype(np.uint8)),
    ),
    "intensities times 1,000": ("intensity-scale", _times_1000),
    "spacing in m": ("spacing-unit", lambda seen, rng: _spaced(seen, 1e-3)),
    "spacing in cm": ("spacing-unit", lambda seen, rng: _spaced(seen, 0.1)),
    "masks flipped left to right": (
        "mirrored-masks",
        lambda seen, rng: _masked(seen, np.ascontiguousarray(np.flip(_mask(seen), 0))),
    ),
    "a fifth of the masks empty": ("empty-masks", lambda seen, rng: _some(0.2, rng, seen, np.zeros_like(_mask(seen)))),
}
