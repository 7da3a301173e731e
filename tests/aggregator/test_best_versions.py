"""Which versions are kept on disk until a score says what they are worth, and which is left at the end."""

from __future__ import annotations

from pathlib import Path

from fedbus.aggregator.job.best import MOST_WAITING, WAITING_BYTES, BestVersions
from fedbus.errors import StoreError


class Disk:
    """Versions in a folder, on a clock that only moves when a file is written."""

    def __init__(self, folder: Path, *, write_s: float = 0.0) -> None:
        self.folder = folder
        self.write_s = write_s
        self.now = 0.0
        self.versions = BestVersions(folder, better="lower", clock=lambda: self.now)

    def write(self, path: Path) -> None:
        self.now += self.write_s
        path.write_text("params")

    def made(self, version: int) -> None:
        if self.versions.wants(version):
            self.versions.keep(version, self.write)

    @property
    def files(self) -> list[int]:
        return [int(path.stem[1:]) for path in sorted(self.folder.glob("v*"))]


def test_the_best_version_is_kept_and_those_that_are_not_are_dropped(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for version, loss in enumerate((0.9, 0.2, 0.7, 0.5)):
        disk.made(version)
        disk.versions.scored(version, loss, newest=version)
    best = disk.versions.best
    assert best is not None
    assert (best.version, best.value, best.path.name) == (1, 0.2, "v00000001.safetensors")
    # the newest may become the best, as its mean still moves
    assert disk.files == [1, 3]
    disk.versions.scored(3, 0.1, newest=3)
    disk.made(4)
    disk.versions.scored(4, 0.3, newest=4)
    assert disk.files == [3, 4]


def test_scores_that_come_after_later_versions_were_made_find_theirs(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for version in range(6):
        disk.made(version)
    disk.versions.scored(2, 0.5, newest=5)
    assert disk.files == [2, 3, 4, 5]
    disk.versions.scored(4, 0.9, newest=5)
    assert disk.files == [2, 4, 5]
    assert disk.versions.best is not None
    assert disk.versions.best.version == 2


def test_a_version_that_is_not_finite_is_never_kept_as_the_best(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for version, loss in enumerate((0.9, None, None)):
        disk.made(version)
        disk.versions.scored(version, loss, newest=version)
    assert disk.versions.best is not None
    assert disk.versions.best.version == 0


def test_disk_and_time_that_it_takes_are_bounded(tmp_path: Path) -> None:
    # given scores that never come
    disk = Disk(tmp_path)
    for version in range(100):
        disk.made(version)
    assert len(disk.files) == MOST_WAITING
    # and a disk that takes a second for a file, with a version each second
    slow = Disk(tmp_path / "slow", write_s=1.0)
    for version in range(100):
        slow.now += 1.0
        slow.made(version)
    assert slow.now < 100 * 1.11


def test_of_a_large_model_only_one_version_waits(tmp_path: Path) -> None:
    disk = Disk(tmp_path)

    def write_large(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(WAITING_BYTES)  # a hole: it takes no room

    for version in range(5):
        if disk.versions.wants(version):
            disk.versions.keep(version, write_large)
    assert disk.files == [4]


def test_when_scores_come_late_some_versions_wait_for_long_enough(tmp_path: Path) -> None:
    # given scores that come 40 versions after a version was made
    disk, found = Disk(tmp_path), 0
    for version in range(400):
        disk.made(version)
        if version >= 40:
            found += version - 40 in disk.files
            disk.versions.scored(version - 40, 1.0 / version, newest=version)
    assert found > 10


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path)

    def full(path: Path) -> None:
        raise StoreError("the disk is full")

    disk.versions.keep(0, full)
    disk.versions.scored(0, 0.5, newest=0)
    assert disk.versions.best is None


def test_the_best_is_known_after_a_restart_and_all_else_is_gone(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    for version, loss in enumerate((0.9, 0.2, 0.7)):
        disk.made(version)
        disk.versions.scored(version, loss, newest=version)
    disk.made(3)
    again = Disk(tmp_path)
    assert again.versions.best == disk.versions.best
    assert again.files == [1]
    again.versions.close(keep=None)
    assert again.files == []
