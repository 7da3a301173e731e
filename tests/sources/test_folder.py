"""A folder as a source."""

from __future__ import annotations

from pathlib import Path

from fedbus.bench.annotation.label_server import write_image, write_label
from fedbus.sources.intake import Found, Intake
from fedbus.sources.journal import JournalFile
from fedbus.sources.run import make_source
from fedbus.sources.settings import SourceSettings


def poll(folder: Path, site: Path) -> Found:
    scratch = site / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    source = make_source(SourceSettings(kind="folder", folder=folder), scratch=scratch)
    journal = JournalFile(site / "state")
    return Intake(source, data=site / "data", scratch=scratch, journal=journal, note=lambda kind, text: None).run()


def test_labelled_studies_come_and_come_again_when_they_change(tmp_path: Path) -> None:
    share = tmp_path / "share"
    for number in range(3):
        write_image(share / "imagesTr" / f"case{number}.nii.gz", seed=number)
    write_label(share / "labelsTr" / "case0.nii.gz")
    write_label(share / "labelsTr" / "case2.nii")
    assert poll(share, tmp_path / "site") == Found(new=2, labelled=2)
    assert poll(share, tmp_path / "site") == Found(new=0, labelled=2)
    write_label(share / "labelsTr" / "case1.nii.gz")
    (share / "labelsTr" / "case2.nii").unlink()
    write_label(share / "labelsTr" / "case2.nii.gz", size=4)
    assert poll(share, tmp_path / "site") == Found(new=2, labelled=3)
    files = sorted(path.name for path in (tmp_path / "site" / "data" / "labels").iterdir())
    assert files == ["case0.nii.gz", "case1.nii.gz", "case2.nii.gz"]
