"""What can be wrong with a study: a fixed word that may leave the site, and a sentence with the file's name that stays.

The word is all that the aggregator, the submitter and other sites are told, with its count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedbus.errors import StudyError
from fedbus.runtime.printable import printable

SAID_OF_EACH: Final = 20
KINDS: Final = {
    "no-label": "an image without its label",
    "no-image": "a label without its image",
    "duplicate": "two files for one study",
    "several-modalities": "a study of more than one image",
    "macos-file": "a file that macOS wrote beside the real one",
    "bad-name": "a name that is no valid text",
    "outside": "a link to a place outside the site's folder",
    "bad-listing": "a dataset.json that cannot be used",
    "unreadable": "a file that cannot be read, or is of another format",
    "truncated": "a file that ends too early",
    "too-large": "a header that asks for more than the memory that a study may take",
    "not-3d": "an array that has not three dimensions",
    "not-numbers": "voxels that are no plain numbers",
    "bad-geometry": "spacing or orientation that no scanner has",
    "missing-slice": "a series whose slices are not evenly spaced",
    "duplicate-slice": "two slices at one place",
    "several-series": "slices of more than one series in one folder",
    "compressed": "pixels in a coding that needs another package",
    "shape-mismatch": "a label of another shape than its image",
    "affine-mismatch": "a label at another place than its image",
    "label-values": "label values that are no classes",
    "no-studies": "no study that can be used",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with the studies of a folder. Only `kind` may leave the site."""

    kind: str
    path: Path
    text: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"expected a kind of {', '.join(KINDS)}; got {self.kind}")

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.text}"


def shown(path: Path) -> str:
    r"""The path as text that any log can hold: bytes that are no text become \xNN, control characters \n."""
    return printable(str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def refused(kind: str, path: Path, text: str) -> StudyError:
    """Return the error of one study: its text names the file, what leaves the site is the kind."""
    problem = Problem(kind=kind, path=path, text=text)
    return StudyError(kind, str(problem))


def told(wrong: Iterable[Problem | StudyError]) -> Iterator[str]:
    """Lines for the site's own log, of each kind the first SAID_OF_EACH; of the rest the count."""
    found: Counter[str] = Counter()
    for one in wrong:
        found[one.kind] += 1
        if found[one.kind] <= SAID_OF_EACH:
            yield f"{one.kind}: {one}"
    for kind, count in found.items():
        if count > SAID_OF_EACH:
            yield f"{kind}: and {count - SAID_OF_EACH} more"


def counted(kinds: Iterable[str]) -> str:
    """`no-label 2, truncated 1`: how often each kind was found; fixed words and counts, nothing else."""
    return ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(kinds).items()))
