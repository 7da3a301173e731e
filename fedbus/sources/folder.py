"""A folder of labelled studies as a source: an export that somebody's tool writes, a share of the department."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from fedbus.errors import DataError, SourceError
from fedbus.imaging.studies import Study, find_studies
from fedbus.sources import disk
from fedbus.sources.source import MOST_ITEMS, Files, Item, Known, nifti_ending, sha256_of


class Folder:
    """See `DataSource`. NIfTI files in one of the layouts that `find_studies` knows."""

    def __init__(self, folder: Path, *, scratch: Path, most_bytes: int) -> None:
        self._folder = folder
        self._scratch = scratch
        self._most_bytes = most_bytes
        self._studies: dict[str, Study] = {}

    def list(self, known: Mapping[str, Known]) -> Iterator[Item]:
        try:
            found = find_studies(self._folder).studies
        except (DataError, OSError) as exc:
            raise SourceError(str(exc), kind="no-studies") from exc
        for study in found[:MOST_ITEMS]:
            self._studies[study.id] = study
            yield self._item(study, known.get(study.id))

    def materialise(self, item: Item, folder: Path) -> Files:
        study = self._studies[item.id]
        if study.label is None:
            raise SourceError(f"{study.image} has no label", kind="no-label")
        image = folder / f"image{nifti_ending(study.image.name)}"
        label = folder / f"label{nifti_ending(study.label.name)}"
        disk.copy(study.image, image, most_bytes=self._most_bytes)
        if item.sha256:
            self._label_file.replace(label)
        else:
            disk.copy(study.label, label, most_bytes=self._most_bytes)
        return Files(image=image, label=label)

    def publish(self, artifact: Path) -> str:
        raise SourceError("a folder takes a model back as model_file only", kind="no-model")

    @property
    def _label_file(self) -> Path:
        return self._scratch / "listed-label"

    def _item(self, study: Study, before: Known | None) -> Item:
        if study.label is None:
            return Item(id=study.id, labelled=False)
        try:
            mark = disk.mark_of(study.label)
            if before is not None and mark == before.mark:
                return Item(id=study.id, labelled=True, sha256=before.sha256, mark=mark)
            disk.copy(study.label, self._label_file, most_bytes=self._most_bytes)
        except SourceError:
            return Item(id=study.id, labelled=True)
        return Item(id=study.id, labelled=True, sha256=sha256_of(self._label_file), mark=mark)
