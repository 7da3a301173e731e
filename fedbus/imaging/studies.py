"""Which files of a folder are studies: image and label found by name, in one of three layouts.

    msd      imagesTr/NAME.nii.gz, labelsTr/NAME.nii.gz, dataset.json (Medical Segmentation Decathlon; it may be absent)
    paired   images/NAME.nii.gz, labels/NAME.nii.gz; or a folder per case with imaging.nii.gz and segmentation.nii.gz
             (KiTS)
    dicom    as paired, but an image is a folder with the slices of one DICOM series

Names are compared as Unicode text in one form, so that a label named on macOS fits an image named on Linux. Nothing is
opened but dataset.json: what is wrong inside a file shows when it is read, see `volumes`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from fedbus.errors import DataError
from fedbus.imaging.problems import Problem

Layout = Literal["msd", "paired", "dicom"]

LISTING: Final = "dataset.json"
MOST_LISTING_BYTES: Final = 4 << 20
MOST_STUDIES: Final = 100_000
ENDINGS: Final = (".nii.gz", ".nii")
PAIRS: Final = {"msd": (("imagesTr", "labelsTr"),), "paired": (("images", "labels"), ("images", "masks"))}
CASE_IMAGES: Final = ("imaging", "image", "dicom")
CASE_LABELS: Final = ("segmentation", "label", "mask")
FIRST_MODALITY: Final = "_0000"
LAYOUTS: Final = (
    "imagesTr/ and labelsTr/ (Medical Segmentation Decathlon), images/ and labels/, or a folder per case with "
    "imaging.nii.gz and segmentation.nii.gz; an image may also be a folder with one DICOM series"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study: an image (a NIfTI file, or a folder of one DICOM series) and its label, if it has one already."""

    id: str
    image: Path
    label: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Studies:
    """What was found in a folder, in the order of the ids.

    labels: class names by value as the site's dataset.json says, empty without one. problems: what was left out, or
    found beside the studies; images without a label are in both.
    """

    folder: Path
    layout: Layout
    studies: tuple[Study, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def labelled(self) -> tuple[Study, ...]:
        return tuple(study for study in self.studies if study.label is not None)


class _Finder:
    """Collects studies and problems below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder.resolve()
        self.problems: list[Problem] = []

    def problem(self, kind: str, path: Path, text: str) -> None:
        self.problems.append(Problem(kind=kind, path=path, text=text))

    def entries(self, folder: Path) -> Iterator[Path]:
        """Names in a folder that may be looked at, sorted; what may not is noted."""
        for path in sorted(folder.iterdir()):
            if path.name.startswith("._"):
                self.problem("macos-file", path, "macOS wrote it beside the real file; it is no image and not read")
            elif path.name.startswith("."):
                continue
            elif not _is_text(path.name):
                self.problem("bad-name", path, "its name is no valid UTF-8 text; rename it")
            elif not self._is_inside(path):
                self.problem("outside", path, "it leads out of the site's folder and is not followed; copy it there")
            else:
                yield path

    def _is_inside(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError):  # links that lead round in a circle
            return False

    def named(self, folder: Path, *, series: bool) -> dict[str, Path]:
        """NIfTI files of a folder by study id, and with `series` its folders; the second of one id is noted."""
        found: dict[str, Path] = {}
        for path in self.entries(folder):
            name = _stem(path)
            if name is None and not (series and path.is_dir()):
                continue
            key = _form(name or path.name)
            if key in found:
                self.problem("duplicate", path, f"{found[key].name} is the same study; remove one of them")
            else:
                found[key] = path
        return found


def find_studies(folder: Path) -> Studies:
    """Find the studies of a folder and what is wrong there.

    Raises DataError when the folder is none, cannot be listed, or has none of the layouts.
    """
    if not folder.is_dir():
        raise DataError(f"expected a folder with studies at {folder}, found none: is it mounted?")
    try:
        return _found(_Finder(folder), folder)
    except OSError as exc:
        raise DataError(f"the studies of {folder} cannot be listed: {exc}") from exc


def _found(finder: _Finder, folder: Path) -> Studies:
    for layout, pairs in PAIRS.items():
        for images, labels in pairs:
            if (folder / images).is_dir() and ((folder / labels).is_dir() or layout == "msd"):
                found = _pairs(finder, folder / images, folder / labels)
                return _studies(finder, "msd" if layout == "msd" else "paired", found)
    found = _cases(finder)
    if not found:
        raise DataError(f"expected in {folder} {LAYOUTS}; found none of them: does --data name the right folder?")
    return _studies(finder, "paired", found)


def _studies(finder: _Finder, layout: Layout, found: list[Study]) -> Studies:
    if len(found) > MOST_STUDIES:
        raise DataError(f"expected at most {MOST_STUDIES:,} studies in {finder.folder}, found {len(found):,}")
    if any(study.image.is_dir() for study in found):
        layout = "dicom"
    labels = _listing(finder)
    return Studies(
        folder=finder.folder,
        layout=layout,
        studies=tuple(sorted(found, key=lambda study: study.id)),
        labels=labels,
        problems=tuple(finder.problems),
    )


def _pairs(finder: _Finder, images: Path, labels: Path) -> list[Study]:
    """Studies of two folders whose files have the same names."""
    pictures = _one_modality(finder, finder.named(images, series=True))
    masks = finder.named(labels, series=False) if labels.is_dir() else {}
    for name in masks.keys() - pictures.keys():
        finder.problem("no-image", masks[name], f"there is no image of this name in {images.name}; it is left out")
    for name in sorted(pictures.keys() - masks.keys()):
        text = f"there is no label of this name in {labels.name}; it is not trained on"
        finder.problem("no-label", pictures[name], text)
    return [Study(id=name, image=path, label=masks.get(name)) for name, path in pictures.items()]


def _one_modality(finder: _Finder, found: dict[str, Path]) -> dict[str, Path]:
    """Take the suffix _0000 off (nnU-Net's first modality); studies that have a second one are left out."""
    single: dict[str, Path] = {}
    for name, path in found.items():
        base = name[: -len(FIRST_MODALITY)]
        if name[-5:-4] == "_" and name[-4:].isdecimal() and f"{base}{FIRST_MODALITY}" in found:
            if f"{base}_0001" in found:
                text = f"{base} has several modalities; expected one image per study: keep the one to train on"
                if name.endswith(FIRST_MODALITY):
                    finder.problem("several-modalities", path, text)
                continue
            name = base  # noqa: PLW2901 - the id is the name without its suffix
        single[name] = path
    return single


def _cases(finder: _Finder) -> list[Study]:
    """Studies of folders that hold an image and a label, as KiTS has them, or slices with the label in or beside it."""
    entries = tuple(finder.entries(finder.folder))
    beside = {_form(stem): path for path in entries if (stem := _stem(path))}
    found = (_case(finder, path, beside.get(_form(path.name))) for path in entries if path.is_dir())
    return [study for study in found if study is not None]


def _case(finder: _Finder, case: Path, beside: Path | None) -> Study | None:
    """The study of one folder; None when it holds neither an image nor a label, which is no problem."""
    entries = tuple(finder.entries(case))
    names = {(_stem(path) or path.name).lower(): path for path in entries if _stem(path) or path.is_dir()}
    image = next((names[name] for name in CASE_IMAGES if name in names), None)
    label = next((names[name] for name in CASE_LABELS if name in names and names[name].is_file()), beside)
    if image is None and label is not None and any(path.is_file() and _stem(path) is None for path in entries):
        image = case
    if image is None:
        if label is not None:
            finder.problem("no-image", label, f"there is no {CASE_IMAGES[0]}.nii.gz with it; it is left out")
        return None
    if label is None:
        finder.problem("no-label", image, f"there is no {CASE_LABELS[0]}.nii.gz with it; it is not trained on")
    return Study(id=_form(case.name), image=image, label=label)


def _listing(finder: _Finder) -> dict[int, str]:
    """Return class names by value of dataset.json, {} without one; note files that it names and that are not there."""
    path = finder.folder / LISTING
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_LISTING_BYTES:
            raise ValueError(f"expected at most {MOST_LISTING_BYTES} bytes")
        said = json.loads(path.read_text(encoding="utf-8-sig"))
        for image in _listed_images(said):
            if not (finder.folder / image).exists():
                finder.problem("no-image", path, f"it lists {image}, which is not there")
        return _class_names(said.get("labels", {}))
    except (OSError, ValueError, RecursionError, AttributeError, TypeError) as exc:
        finder.problem("bad-listing", path, f"expected a Decathlon listing with `labels`, cannot read it: {exc}")
        return {}


def _listed_images(said: Mapping[str, object]) -> Iterator[str]:
    rows = said.get("training", [])
    for row in rows if isinstance(rows, list) else []:
        image = row.get("image") if isinstance(row, dict) else row
        if isinstance(image, str):
            yield image.removeprefix("./")


def _class_names(labels: Mapping[str, object]) -> dict[int, str]:
    """{value: name}, of the Decathlon's {"1": "kidney"} and of nnU-Net's {"kidney": 1}."""
    names = {}
    for key, value in labels.items():
        if isinstance(value, int) and not key.isdecimal():
            names[value] = key
        elif key.isdecimal():
            names[int(key)] = str(value)
    return names


def _stem(path: Path) -> str | None:
    """The name of a NIfTI file without its ending; None for what is none."""
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    return None if ending is None or path.is_dir() else path.name[: -len(ending)]


def _form(name: str) -> str:
    """The name in the one form in which names are compared: macOS writes ü as two characters."""
    return unicodedata.normalize("NFC", name)


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
