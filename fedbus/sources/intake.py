"""One pass over a source: what is new there is fetched beside, checked, and only then put among the site's data.

    list → (label not as it was) → fetch into a folder that is thrown away → read both files whole → place image, then
    label, each in one step → journal

So a trainer that loads meanwhile finds whole files. A study that cannot be used is left out and said; the others go on.
A study that the source no longer has stays here until a person deletes it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedbus.errors import DataError, SourceError, StoreError
from fedbus.imaging.studies import Study
from fedbus.imaging.volumes import read_study
from fedbus.sources.journal import Journal, JournalFile
from fedbus.sources.source import DataSource, Files, Item, Known, nifti_ending, safe_name, sha256_of
from fedbus.store.files import disk_errors, is_full, make_folder, replace_durably

MOST_TEXT_BYTES = 2000
Note = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a pass came to: labels that were taken, studies with a label, and what was wrong, by kind."""

    new: int = 0
    labelled: int = 0
    problems: Mapping[str, int] = field(default_factory=dict)


class Intake:
    """Of one site: `data` is its data folder, `scratch` one of its own; `note` is told kind and text of troubles."""

    def __init__(self, source: DataSource, *, data: Path, scratch: Path, journal: JournalFile, note: Note) -> None:
        self._source = source
        self._data = data
        self._scratch = scratch
        self._file = journal
        self._note = note
        self._journal = journal.read()

    def run(self) -> Found:
        """Take what is new. Raises SourceError when the source itself cannot be used, StoreError for our own disk."""
        try:
            return self._pass()
        except OSError as exc:
            if not is_full(exc):
                raise SourceError(f"the source cannot be read: {exc}", kind="unreadable") from exc
            with disk_errors("cannot take studies into", self._data):
                raise

    def _pass(self) -> Found:
        new, labelled = 0, 0
        problems: Counter[str] = Counter()
        known = {study: Known(sha256=t.sha256, mark=t.mark) for study, t in self._journal.studies.items()}
        for item in self._source.list(known):
            if not item.labelled:
                continue
            labelled += 1
            try:
                new += self._take(item)
            except (SourceError, DataError) as exc:
                kind = str(getattr(exc, "kind", "unreadable"))
                if kind == "unreachable":
                    raise
                problems[kind] += 1
                self._note(kind, f"study {item.id[:80]!r}: {exc}")
            except StoreError:
                raise
            except Exception as exc:  # what packages raise for a file from outside; the next one may be good
                if is_full(exc):
                    raise
                problems["unreadable"] += 1
                self._note("unreadable", f"study {item.id[:80]!r}: {type(exc).__name__}: {exc}")
        return Found(new=new, labelled=labelled, problems=dict(problems))

    def _take(self, item: Item) -> bool:
        _check_text(item.id)
        _check_text(item.mark)
        before = self._journal.studies.get(item.id)
        if before is not None and item.sha256 == before.sha256:
            if item.mark != before.mark:
                self._keep(self._journal.with_mark(item.id, item.mark))
            return False
        shutil.rmtree(self._scratch / "study", ignore_errors=True)
        folder = make_folder(self._scratch / "study")
        files = self._source.materialise(item, folder)
        read_study(Study(id=item.id, image=files.image, label=files.label))
        name, sha256 = safe_name(item.id), item.sha256 or sha256_of(files.label)
        self._place(files, name, ours=before is not None, sha256=sha256)
        self._keep(self._journal.with_label(item.id, sha256=sha256, mark=item.mark, name=name))
        shutil.rmtree(folder, ignore_errors=True)
        return True

    def _keep(self, journal: Journal) -> None:
        self._file.write(journal)
        self._journal = journal

    def _place(self, files: Files, name: str, *, ours: bool, sha256: str) -> None:
        """Image first: an image without a label is nothing to train on, a label of another image would be wrong."""
        image = make_folder(self._data / "images") / f"{name}{nifti_ending(files.image.name)}"
        label = make_folder(self._data / "labels") / f"{name}{nifti_ending(files.label.name)}"
        others = [path for folder in (image.parent, label.parent) for path in _of_study(folder, name)]
        if others and not ours and not (label.exists() and sha256_of(label) == sha256):
            raise SourceError(f"the data folder has a study {name} that is not from the source", kind="name-taken")
        for fetched, place in ((files.image, image), (files.label, label)):
            with replace_durably(place) as beside:
                shutil.copyfile(fetched, beside)
        for path in others:
            if path not in (image, label):
                path.unlink(missing_ok=True)  # the same study with the other ending


def _check_text(text: str) -> None:
    """Raise SourceError for what the journal cannot hold: half a character, or a name without end."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as exc:
        raise SourceError("its name in the source is not Unicode text", kind="bad-name") from exc
    if size > MOST_TEXT_BYTES:
        raise SourceError(f"its name in the source has {size} bytes, at most {MOST_TEXT_BYTES}", kind="bad-name")


def _of_study(folder: Path, name: str) -> list[Path]:
    return [path for ending in (".nii", ".nii.gz") if (path := folder / f"{name}{ending}").exists()]
