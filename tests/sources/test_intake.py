"""A pass over a source that a few lines stand for: what nobody may give a site, and a disk that has no room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedbus.bench.annotation.label_server import LabelFolder, LabelServer, served, write_image, write_label
from fedbus.errors import DiskFullError
from fedbus.sources.intake import Found, Intake
from fedbus.sources.journal import JournalFile
from fedbus.sources.monailabel import MonaiLabel, OnDisk, OverHttp
from fedbus.sources.source import Files, Item, Known
from fedbus.sources.web import Web

FULL = Path("/dev/full")
LIMITS: dict[str, Any] = {"timeout_s": 30, "most_bytes": 1 << 20}


class Given:
    """A source of these ids. `full`: where it writes beside what is asked for, there is no room."""

    def __init__(self, *ids: str, full: str = "") -> None:
        self.ids = ids
        self.full = full

    def list(self, known: Mapping[str, Known]) -> Iterator[Item]:
        for study in self.ids:
            if self.full == "list":
                FULL.write_bytes(b"a label")
            before = known.get(study)
            yield Item(id=study, labelled=True, sha256="" if before is None else before.sha256, mark="1")

    def materialise(self, item: Item, folder: Path) -> Files:
        if self.full == "materialise":
            FULL.write_bytes(b"an image")
        return Files(image=write_image(folder / "image.nii.gz"), label=write_label(folder / "label.nii.gz"))

    def publish(self, artifact: Path) -> str:
        raise AssertionError("nothing is published here")


def poll(source: Given | MonaiLabel, site: Path) -> Found:
    (site / "scratch").mkdir(exist_ok=True)
    journal = JournalFile(site / "state")
    note = lambda kind, text: None  # noqa: E731
    return Intake(source, data=site / "data", scratch=site / "scratch", journal=journal, note=note).run()


@pytest.mark.parametrize("study", ["case\udc80", "x" * 5000], ids=["half", "long"])
def test_a_study_whose_id_cannot_be_kept_stays_out_and_the_next_pass_is_well(tmp_path: Path, study: str) -> None:
    source = Given(study, "case1")
    assert poll(source, tmp_path) == Found(new=1, labelled=2, problems={"bad-name": 1})
    assert poll(source, tmp_path) == Found(new=0, labelled=2, problems={"bad-name": 1})


def test_an_id_that_no_address_can_hold_costs_no_other_study(tmp_path: Path) -> None:
    studies = LabelFolder(tmp_path / "studies")
    studies.objects["case\ud800"] = {"image": {"ext": ".nii.gz"}, "labels": {"final": {"ext": ".nii.gz"}}}
    studies.add_image("case1")
    studies.submit("case1")
    with served(LabelServer(studies)) as url:
        for new, store in (1, OverHttp(Web(url, **LIMITS))), (0, OnDisk(studies.folder, most_bytes=1 << 20)):
            source = MonaiLabel(store, scratch=tmp_path / "scratch")
            assert poll(source, tmp_path) == Found(new=new, labelled=2, problems={"bad-name": 1})


@pytest.mark.parametrize("place", ["list", "materialise"])
def test_a_full_disk_of_the_site_ends_the_pass_and_is_said(tmp_path: Path, place: str) -> None:
    with pytest.raises(DiskFullError):
        poll(Given("case0", "case1", full=place), tmp_path)


def test_a_full_disk_does_not_read_as_a_server_that_is_away(tmp_path: Path) -> None:
    studies = LabelFolder(tmp_path / "studies")
    studies.add_image("case0")
    with served(LabelServer(studies)) as url, pytest.raises(OSError, match="No space left"):
        OverHttp(Web(url, **LIMITS)).image("case0", ".nii.gz", FULL)
