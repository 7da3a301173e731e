"""A MONAI Label server as a source, over HTTP and in its folder: what is new comes whole, what is broken stays out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import pytest

from fedbus.bench.annotation.label_server import LabelFolder, LabelServer, served
from fedbus.errors import SourceError
from fedbus.sources.intake import Found, Intake
from fedbus.sources.journal import JournalFile
from fedbus.sources.run import make_source, publish
from fedbus.sources.settings import SourceSettings


class Site:
    """A site's data folder and what it has taken from the server so far."""

    def __init__(self, place: Path, **settings: Any) -> None:
        self.settings = SourceSettings(kind="monailabel", **settings)
        self.data = place / "data"
        self.state = place / "state"
        self.notes: list[tuple[str, str]] = []

    def poll(self) -> Found:
        self.notes = []
        scratch = self.state / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        source = make_source(self.settings, scratch=scratch)
        journal = JournalFile(self.state)
        notes = lambda kind, text: self.notes.append((kind, text))  # noqa: E731
        return Intake(source, data=self.data, scratch=scratch, journal=journal, note=notes).run()

    def new_since(self, number: int) -> int:
        return JournalFile(self.state).read().since(number)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*") if path.is_file())

    def voxels(self, study: str) -> int:
        return int(nibabel.load(self.data / "labels" / f"{study}.nii.gz").get_fdata().sum())


@pytest.fixture
def studies(tmp_path: Path) -> LabelFolder:
    found = LabelFolder(tmp_path / "studies")
    for number in range(3):
        found.add_image(f"case{number}", seed=number)
    return found


@pytest.fixture(params=["http", "folder"])
def site(request: pytest.FixtureRequest, studies: LabelFolder, tmp_path: Path) -> Iterator[Site]:
    if request.param == "folder":
        yield Site(tmp_path / "site", folder=studies.folder)
        return
    with served(LabelServer(studies)) as url:
        yield Site(tmp_path / "site", url=url)


def test_only_what_an_annotator_has_submitted_comes(site: Site, studies: LabelFolder) -> None:
    studies.submit("case0", tag="original")
    studies.submit("case1")
    assert site.poll() == Found(new=1, labelled=1)
    assert site.files() == ["images/case1.nii.gz", "labels/case1.nii.gz"]
    assert site.poll() == Found(new=0, labelled=1)


def test_a_label_that_was_overwritten_is_new_though_its_time_is_the_old_one(site: Site, studies: LabelFolder) -> None:
    studies.submit("case0", size=2)
    studies.submit("case1", size=2)
    site.poll()
    studies.write_label("case0", size=4)
    assert site.poll().new == 1
    assert site.voxels("case0") == 64
    assert site.new_since(0) == 2
    assert site.new_since(2) == 1


def test_a_label_that_was_written_anew_without_a_change_is_not_new(site: Site, studies: LabelFolder) -> None:
    studies.submit("case0")
    site.poll()
    os.utime(studies.label("case0"), ns=(1, 1))
    assert site.poll().new == 0


def test_a_broken_label_is_left_out_and_the_others_come(site: Site, studies: LabelFolder) -> None:
    for number in range(3):
        studies.submit(f"case{number}")
    whole = studies.label("case1").read_bytes()
    studies.label("case1").write_bytes(whole[:-12])
    found = site.poll()
    assert (found.new, sum(found.problems.values())) == (2, 1)
    assert "case1" in site.notes[0][1]
    assert "labels/case1.nii.gz" not in site.files()
    studies.label("case1").write_bytes(whole)
    assert site.poll().new == 1


def test_a_label_of_another_shape_is_left_out(site: Site, studies: LabelFolder) -> None:
    studies.submit("case0", shape=(8, 7, 5))
    assert dict(site.poll().problems) == {"shape-mismatch": 1}
    assert site.files() == []


def test_a_study_that_leads_out_of_the_folder_is_not_read(site: Site, studies: LabelFolder, tmp_path: Path) -> None:
    (tmp_path / "secret.nii.gz").write_bytes(b"not yours")
    studies.objects["../secret"] = {"image": {"ext": ".nii.gz"}, "labels": {"final": {"ext": ".nii.gz"}}}
    studies.submit("case0")
    assert site.poll().new == 1
    assert site.files() == ["images/case0.nii.gz", "labels/case0.nii.gz"]


def test_an_odd_id_becomes_a_plain_file_name(site: Site, studies: LabelFolder) -> None:
    studies.add_image("Müller 1")
    studies.submit("Müller 1")
    assert site.poll().new == 1
    assert all(name.isascii() and " " not in name for name in site.files())


def test_the_hospitals_own_study_of_that_name_is_not_overwritten(site: Site, studies: LabelFolder) -> None:
    (site.data / "labels").mkdir(parents=True)
    (site.data / "labels" / "case0.nii.gz").write_bytes(b"ours")
    studies.submit("case0")
    assert dict(site.poll().problems) == {"name-taken": 1}
    assert (site.data / "labels" / "case0.nii.gz").read_bytes() == b"ours"


def test_a_pass_that_was_killed_before_its_journal_is_done_again(site: Site, studies: LabelFolder) -> None:
    studies.submit("case0")
    site.poll()
    (site.state / "taken.json").unlink()
    assert site.poll() == Found(new=1, labelled=1)


@pytest.mark.parametrize("said", ["[1, 2", '{"objects": []}', "[" * 100_000])
def test_a_listing_that_is_none_is_one_error(site: Site, studies: LabelFolder, said: str) -> None:
    (studies.folder / "datastore_v2.json").write_text(said)
    with pytest.raises(SourceError) as found:
        site.poll()
    assert found.value.kind == "not-json"


def test_unchanged_labels_are_not_read_again(studies: LabelFolder, tmp_path: Path) -> None:
    studies.submit("case0")
    server = LabelServer(studies)
    with served(server) as url:
        site = Site(tmp_path / "site", url=url)
        site.poll()
        server.requests.clear()
        site.poll()
    assert server.requests == ["GET /datastore/?output=all", "GET /datastore/label?label=case0&tag=final"]


def test_a_connection_that_ends_early_brings_no_half_file(studies: LabelFolder, tmp_path: Path) -> None:
    studies.submit("case0")
    server = LabelServer(studies)
    with served(server) as url:
        site = Site(tmp_path / "site", url=url)
        server.cut_files = True
        with pytest.raises(SourceError):
            site.poll()
    assert site.files() == []


def test_a_server_that_is_down_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as found:
        Site(tmp_path, url="http://127.0.0.1:9").poll()
    assert found.value.kind == "unreachable"


def test_the_token_goes_to_the_server_and_nowhere_else(studies: LabelFolder, tmp_path: Path) -> None:
    studies.submit("case0")
    (tmp_path / "token").write_text("s3cret\n")
    server, elsewhere = LabelServer(studies, token="s3cret"), LabelServer(studies)
    with served(server) as url, served(elsewhere) as other:
        site = Site(tmp_path / "site", url=url, token_file=tmp_path / "token")
        assert site.poll().new == 1
        server.redirect_to = other
        with pytest.raises(SourceError):
            site.poll()
    assert elsewhere.requests == []


def test_a_file_larger_than_allowed_is_left_out(studies: LabelFolder, tmp_path: Path) -> None:
    studies.submit("case0")
    with studies.label("case0").open("ab") as file:
        file.truncate(2 << 20)
    site = Site(tmp_path / "site", folder=studies.folder, most_file_mib=1)
    assert dict(site.poll().problems) == {"too-large": 1}


def test_a_model_is_given_to_the_server(studies: LabelFolder, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(bytes(range(256)) * 100)
    server = LabelServer(studies)
    with served(server) as url:
        settings = SourceSettings(kind="monailabel", url=url, model="kidney")
        publish(make_source(settings, scratch=tmp_path), settings, tmp_path / "model.pt")
    assert server.models["kidney"] == (tmp_path / "model.pt").read_bytes()


def test_a_model_takes_the_place_of_a_file_and_keeps_its_mode(studies: LabelFolder, tmp_path: Path) -> None:
    (tmp_path / "new.pt").write_bytes(b"new")
    place = tmp_path / "bundle" / "models" / "model.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"old")
    place.chmod(0o664)
    settings = SourceSettings(kind="monailabel", folder=studies.folder, model_file=place)
    publish(make_source(settings, scratch=tmp_path), settings, tmp_path / "new.pt")
    assert place.read_bytes() == b"new"
    assert place.stat().st_mode & 0o777 == 0o664
    assert [path.name for path in place.parent.iterdir()] == ["model.pt"]
