"""What a site has taken from its data source, on its disk: the cursor of the source, and what is new since when.

Every label that is taken gets the next number. A study whose label was corrected has the number of the correction, so
that it is new again, once. `trained` says up to which number each task has been trained with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fedbus.errors import StoreError
from fedbus.store.files import disk_errors, make_folder, replace_durably


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One study: what its label was (`sha256`, `mark`), its file name here, and the number of its label."""

    sha256: str
    mark: str
    name: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """All that was taken, by the source's ids."""

    newest: int = 0
    studies: Mapping[str, Taken] = field(default_factory=dict)

    def since(self, number: int) -> int:
        """How many studies have a newer label than that."""
        return sum(taken.number > number for taken in self.studies.values())

    def with_label(self, study: str, *, sha256: str, mark: str, name: str) -> Journal:
        """The journal once a new label of a study is there."""
        number = self.newest + 1
        taken = Taken(sha256=sha256, mark=mark, name=name, number=number)
        return Journal(newest=number, studies={**self.studies, study: taken})

    def with_mark(self, study: str, mark: str) -> Journal:
        """The journal once a label turned out to be the same, though it was written."""
        was = self.studies[study]
        taken = Taken(sha256=was.sha256, mark=mark, name=was.name, number=was.number)
        return Journal(newest=self.newest, studies={**self.studies, study: taken})


class JournalFile:
    """In a folder of its own in the site's state: the child that polls does `write`, the daemon `set_trained`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "taken.json"
        self._trained = folder / "trained.json"

    def read(self) -> Journal:
        """What stands there; an empty one when there is none. Raises StoreError for a damaged one."""
        found: Journal = _read(self._file, _JOURNAL, Journal(), then="all is taken from the source anew")
        return found

    def write(self, journal: Journal) -> None:
        """Durable when this returns. Raises StoreError."""
        _write(self._file, asdict(journal))

    def trained(self) -> dict[str, int]:
        """By task, the number of the newest label that it was trained with. Raises StoreError for a damaged file."""
        found: dict[str, int] = _read(self._trained, _NUMBERS, {}, then="all labels count as new")
        return found

    def set_trained(self, trained: Mapping[str, int]) -> None:
        """Durable when this returns. Raises StoreError."""
        _write(self._trained, dict(trained))


_JOURNAL: TypeAdapter[Any] = TypeAdapter(with_config(ConfigDict(extra="ignore"))(Journal))
_NUMBERS: TypeAdapter[Any] = TypeAdapter(dict[str, int])


def _read(path: Path, kind: TypeAdapter[Any], empty: Any, *, then: str) -> Any:
    """The content of a file, `empty` where there is none; `then`: what follows when a damaged one is moved away."""
    with disk_errors("cannot read", path):
        if not path.exists():
            return empty
        body = path.read_bytes()
    try:
        return kind.validate_json(body)
    except ValidationError as exc:
        raise StoreError(f"{path} is damaged: move it away, then {then}") from exc


def _write(path: Path, content: Any) -> None:
    make_folder(path.parent)
    with replace_durably(path) as beside:
        beside.write_text(json.dumps(content))
