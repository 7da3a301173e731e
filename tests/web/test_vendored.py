"""What comes from others is what they have published, with their licence, and is in the wheel."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fedbus.web.render import STATIC_FOLDER

VENDORED = {  # npm pack htmx.org@4.0.1 uplot@1.6.32
    "htmx/htmx.min.js": "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130",
    "htmx/LICENSE": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
    "uplot/uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot/uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uplot/LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}


def test_vendored_files_are_the_published_ones_each_with_its_licence() -> None:
    folder = STATIC_FOLDER / "vendor"
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert found == set(VENDORED)
    for name, sha256 in VENDORED.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256, name


def test_nothing_in_templates_or_scripts_asks_for_another_host() -> None:
    own = [file for file in Path(STATIC_FOLDER).parent.rglob("*") if file.suffix in (".html", ".js", ".css", ".svg")]
    for file in own:
        if "vendor" not in file.parts:
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text, file
            assert "https:" not in text, file
            assert "style=" not in text, file


def test_the_look_stays_small() -> None:
    assert len((STATIC_FOLDER / "page.css").read_text("utf-8").splitlines()) <= 250
