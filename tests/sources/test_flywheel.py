"""A Flywheel project as a source: the real SDK, against the calls that it really makes. No live Flywheel is asked."""

from __future__ import annotations

import hashlib
import json
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from fedbus.bench.annotation.label_server import Answer, served, write_image, write_label
from fedbus.errors import SourceError
from fedbus.sources.intake import Found, Intake
from fedbus.sources.journal import JournalFile
from fedbus.sources.run import make_source, publish
from fedbus.sources.settings import SourceSettings

PROJECT = "5f0000000000000000000001"
KEY = "K" * 24


class FlywheelServer:
    """Acquisitions of one project, as the API tells them; `uploads` are the project's files by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.acquisitions: dict[str, list[dict[str, Any]]] = {}
        self.uploads: dict[str, bytes] = {}
        self.cut_files = False

    def add(self, number: int, *, tag: str = "final", size: int = 3, version: int = 1) -> None:
        """An acquisition with an image and a label."""
        key = f"5f00000000000000000001{number:02}"
        image = write_image(self.folder / key / "ct.nii.gz", seed=number)
        label = write_label(self.folder / key / "mask.nii.gz", size=size)
        self.acquisitions[key] = [
            self._file(image, file_id=f"i{number}", version=1, tags=[]),
            self._file(label, file_id=f"l{number}", version=version, tags=[tag]),
            {"name": "report.pdf", "type": "pdf", "size": 3, "file_id": "r", "version": 1, "tags": ["final"]},
        ]

    def _file(self, path: Path, **fields: Any) -> dict[str, Any]:
        return {"name": path.name, "type": "nifti", "size": path.stat().st_size} | fields

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:  # noqa: PLR0911  a table of calls
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if headers.get("Authorization") != f"scitran-user {KEY}":
            return 401, {"Content-Type": "application/json"}, b'{"message": "wrong key"}'
        match method, parts.path.removeprefix("/api").split("/")[1:]:
            case "GET", ["auth", "status"]:
                return self._json({"is_admin": False, "user_is_admin": False, "origin": {"type": "user", "id": "me"}})
            case "GET", ["projects"]:
                named = query.get("filter") == "label=kidneys"
                return self._json([{"_id": PROJECT, "label": "kidneys"}] if named else [])
            case "GET", ["acquisitions"] if query.get("filter") == f"parents.project={PROJECT}":
                after = query.get("after_id", "")
                page = [{"_id": key, "files": files} for key, files in sorted(self.acquisitions.items()) if key > after]
                return self._json(page[:2])
            case "GET", ["acquisitions", key, "files", name]:
                return 200, {}, (self.folder / key / unquote(name)).read_bytes()
            case "POST", ["projects", _, "files"]:
                return self._upload(headers, body)
        return self._json({})

    def _upload(self, headers: Any, body: bytes) -> Answer:
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        (part,) = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
        self.uploads[str(part.get_filename())] = part.get_payload(decode=True)
        return self._json([{"name": part.get_filename()}])

    def _json(self, value: Any) -> Answer:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def settings_of(url: str, folder: Path, *, key: str = KEY, **more: Any) -> SourceSettings:
    token = folder / "token"
    token.write_text(f"{url.removeprefix('http://')}:__force_insecure:{key}\n")
    return SourceSettings(kind="flywheel", project=more.pop("project", "kidneys"), token_file=token, **more)


def poll(settings: SourceSettings, site: Path) -> Found:
    scratch = site / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    source, journal = make_source(settings, scratch=scratch), JournalFile(site / "state")
    return Intake(source, data=site / "data", scratch=scratch, journal=journal, note=lambda kind, text: None).run()


def test_tagged_labels_come_and_a_new_version_comes_again(tmp_path: Path) -> None:
    server = FlywheelServer(tmp_path / "flywheel")
    for number in range(3):
        server.add(number)
    server.add(3, tag="proposal")
    with served(server) as url:
        settings = settings_of(url, tmp_path)
        assert poll(settings, tmp_path / "site") == Found(new=3, labelled=3)
        assert poll(settings, tmp_path / "site") == Found(new=0, labelled=3)
        server.add(1, size=5, version=2)
        assert poll(settings, tmp_path / "site") == Found(new=1, labelled=3)
    for key in sorted(server.acquisitions)[:3]:
        placed = tmp_path / "site" / "data" / "labels" / f"{key}.nii.gz"
        assert placed.read_bytes() == (server.folder / key / "mask.nii.gz").read_bytes()


def test_a_download_that_ends_early_brings_nothing(tmp_path: Path) -> None:
    server = FlywheelServer(tmp_path / "flywheel")
    server.add(0)
    with served(server) as url:
        for files in server.acquisitions.values():
            files[1]["size"] += 1
        assert dict(poll(settings_of(url, tmp_path), tmp_path / "site").problems) == {"truncated": 1}
    assert not (tmp_path / "site" / "data").exists()


def test_a_model_becomes_a_file_of_the_project(tmp_path: Path) -> None:
    server = FlywheelServer(tmp_path / "flywheel")
    (tmp_path / "model.pt").write_bytes(b"weights" * 1000)
    with served(server) as url:
        settings = settings_of(url, tmp_path)
        publish(make_source(settings, scratch=tmp_path), settings, tmp_path / "model.pt")
    assert hashlib.sha256(server.uploads["model.pt"]).digest() == hashlib.sha256(b"weights" * 1000).digest()


@pytest.mark.parametrize("more", [{"key": "wrong" * 5}, {"project": "hearts"}])
def test_a_wrong_key_or_project_is_one_error(tmp_path: Path, more: dict[str, str]) -> None:
    with served(FlywheelServer(tmp_path / "flywheel")) as url, pytest.raises(SourceError) as found:
        poll(settings_of(url, tmp_path, **more), tmp_path / "site")
    assert found.value.kind == "refused"


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as found:
        poll(settings_of("http://127.0.0.1:9", tmp_path), tmp_path / "site")
    assert found.value.kind == "unreachable"
