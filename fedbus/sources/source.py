"""What a data source is: something that lists studies, gives their files, and may take a model back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedbus.errors import SourceError

MOST_ITEMS = 100_000
PIECE_BYTES = 1 << 20
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was taken of a study before: the label's sha256, and the mark that the source gave it then."""

    sha256: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One study of a source. It never leaves the site.

    id: the source's own name of it. sha256: of the label's bytes, "" without a label. mark: what tells without reading
    the label that it is still the same, such as an ETag; "" when nothing does.
    """

    id: str
    labelled: bool
    sha256: str = ""
    mark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files of one study, image and label on the same grid, in a folder that is thrown away."""

    image: Path
    label: Path


class DataSource(Protocol):
    """One place that has labelled studies. Made for one pass; it may fail at any call with SourceError."""

    def list(self, known: Mapping[str, Known]) -> Iterator[Item]:
        """Yield the studies that there are now, one by one; of a `known` one with the same mark nothing is read."""

    def materialise(self, item: Item, folder: Path) -> Files:
        """Fetch the files of the item that was listed last into `folder`."""

    def publish(self, artifact: Path) -> str:
        """Give a model back: a file that torch can load; return what was done, in words."""


def safe_name(item: str) -> str:
    """A file name for a study, always the same: its id where that is harmless, else a hash of it."""
    if len(item) <= _LONGEST_NAME and _SAFE.fullmatch(item):
        return item
    return f"study-{hashlib.sha256(item.encode(errors='surrogatepass')).hexdigest()[:24]}"


def sha256_of(path: Path) -> str:
    """Of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nifti_ending(name: str) -> str:
    """`.nii` or `.nii.gz`; SourceError of another file."""
    for ending in (".nii.gz", ".nii"):
        if name.lower().endswith(ending):
            return ending
    raise SourceError(f"{name[-60:]!r} is no NIfTI file (.nii or .nii.gz)", kind="not-nifti")
