"""How many labels are new to a task: what is told, when the task reads them, and what a restart keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbus.errors import StoreError
from fedbus.site.job.new_labels import REST, NewLabels
from fedbus.site.labels import Labels
from fedbus.sources.journal import JournalFile


class Archive:
    """A site's labels, as its source takes them."""

    def __init__(self, folder: Path, *, min_count: int = 1) -> None:
        self.file = JournalFile(folder / "state")
        (folder / "data").mkdir(exist_ok=True)
        self.data = folder / "data"
        self.min_count = min_count
        self.now = 0.0
        self.labels = self.start()

    def start(self) -> Labels:
        return Labels(self.file, data=self.data, min_count=self.min_count)

    def take(self, *studies: str) -> None:
        for study in studies:
            self.file.write(
                self.file.read().with_label(study, sha256=f"{self.file.read().newest}", mark="", name=study)
            )
        self.labels.refresh()

    def job(self, task: str = "segmentation") -> NewLabels:
        return NewLabels(self.labels, task, clock=lambda: self.now)


def test_labels_are_new_to_a_task_until_it_was_trained_with_them(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    job, other = archive.job(), archive.job("other")
    archive.take("a", "b")
    with job.opening():
        archive.take("c")  # came while it was read, so it may not have been
    assert job.count == 3
    job.trained()
    assert (job.count, other.count) == (1, 3)
    archive.labels = archive.start()  # a restart
    assert archive.job().count == 1


def test_a_corrected_label_is_new_once(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    job = archive.job()
    archive.take("a", "b")
    with job.opening():
        pass
    job.trained()
    archive.take("a", "a")
    assert job.count == 1


def test_fewer_than_the_site_wants_to_tell_are_told_as_none(tmp_path: Path) -> None:
    archive = Archive(tmp_path, min_count=3)
    archive.take("a", "b")
    assert archive.job().count == 0
    archive.take("c")
    assert archive.job().count == 3


def test_a_site_without_a_source_tells_nothing_and_waits_for_nothing() -> None:
    job = NewLabels(None, "segmentation")
    assert (job.count, job.waited_for, job.wants_reopening) == (-1, False, False)


def test_at_most_a_quarter_of_the_time_goes_into_reading_anew(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    job = archive.job()
    with job.opening():
        archive.now += 10
    archive.take("a")
    assert not job.wants_reopening
    archive.now += REST * 10
    assert job.wants_reopening


def test_a_site_waits_while_its_folder_is_empty(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    (archive.data / "labels").mkdir()
    assert archive.job().waited_for
    (archive.data / "labels" / "a.nii.gz").write_bytes(b"")
    assert not archive.job().waited_for


def test_a_damaged_journal_is_said_with_what_to_do(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "taken.json").write_text("{")
    with pytest.raises(StoreError, match="move it away"):
        archive.start()
