"""The hippocampi of the Medical Segmentation Decathlon (Task04, CC BY-SA 4.0) as three sites, by scale of intensity.

    low     stored as floats up to some thousands      172 studies of the 260
    uint8   stored as bytes                             55
    high    stored as floats up to more than a million  33

The scanners' scales differ by a factor of a million, which is what hospitals really send. The archive holds images/ and
labels/; nothing of it is part of fedbus.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from fedbus.errors import DataError, StudyError
from fedbus.imaging.volumes import read_volume

SITES: Final = ("low", "uint8", "high")
CLASSES: Final = {0: "background", 1: "anterior", 2: "posterior"}
MOST_FILE_BYTES: Final = 8 << 20
HIGH: Final = 1e4
ENDING: Final = ".nii.gz"


def write_hippocampus(archive: Path, folder: Path) -> dict[str, int]:
    """Write the archive's labelled studies to `folder`/SITE in the Decathlon's layout; return studies per site.

    Raises DataError for what is no such archive.
    """
    images, labels = _files(archive)
    counts = dict.fromkeys(SITES, 0)
    for site in SITES:
        for part in ("imagesTr", "labelsTr"):
            (folder / site / part).mkdir(parents=True, exist_ok=True)
    waiting = folder / f"study{ENDING}.part{ENDING}"
    for name in sorted(images.keys() & labels.keys()):
        waiting.write_bytes(images[name])
        site = _site_of(waiting)
        waiting.replace(folder / site / "imagesTr" / name)
        (folder / site / "labelsTr" / name).write_bytes(labels[name])
        counts[site] += 1
    if not sum(counts.values()):
        raise DataError(f"expected images/*{ENDING} and labels/*{ENDING} in {archive}, found no pair of them")
    for site in SITES:
        listing = {"name": "Hippocampus", "licence": "CC BY-SA 4.0", "labels": {str(k): v for k, v in CLASSES.items()}}
        (folder / site / "dataset.json").write_text(json.dumps(listing, indent=2) + "\n")
    return counts


def _site_of(path: Path) -> str:
    try:
        found = read_volume(path)
    except StudyError as exc:
        raise DataError(f"a study of the archive cannot be read: {exc}") from exc
    if found.dtype == np.uint8:
        return "uint8"
    return "high" if found.array.max() > HIGH else "low"


def _files(archive: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Images and labels by file name."""
    images: dict[str, bytes] = {}
    labels: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for path, data in _members(tar):
                where = images if path.parent.name.startswith("images") else labels
                where[path.name] = data
    except (OSError, tarfile.TarError, zlib.error, EOFError) as exc:
        why, *_ = str(exc).splitlines() or [type(exc).__name__]
        raise DataError(f"{archive} cannot be read as a tar archive: {why}; download it again") from exc
    return images, labels


def _members(tar: tarfile.TarFile) -> Iterator[tuple[PurePosixPath, bytes]]:
    for member in tar:
        path = PurePosixPath(member.name)
        fits = path.name.endswith(ENDING) and not path.name.startswith(".") and member.size <= MOST_FILE_BYTES
        if member.isfile() and fits and path.parent.name in {"images", "labels", "imagesTr", "labelsTr"}:
            file = tar.extractfile(member)
            if file is not None:
                yield path, file.read()
