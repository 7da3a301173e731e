"""`[site.source]`: what is wrong is said with its key, and the settings file names every key at its default."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fedbus.errors import SettingsError
from fedbus.site.settings import SiteSettings
from fedbus.sources.run import run
from fedbus.sources.settings import SourceSettings

SITE_TOML = Path(__file__).parents[2] / "services" / "site" / "site.toml"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "monailabel"}, "needs url"),
        ({"kind": "monailabel", "url": "http://a", "folder": "/b"}, "not both"),
        ({"kind": "folder"}, "needs folder"),
        ({"kind": "dicomweb"}, "needs url"),
        ({"kind": "flywheel", "project": "p"}, "needs token_file"),
        ({"kind": "folder", "folder": "/b", "model": "kidney"}, "use model_file"),
        ({"kind": "dicomweb", "url": "http://a", "model_file": "/m"}, "takes no model back"),
        ({"kind": "dicomweb", "url": "http://user:password@a"}, "pattern"),
        ({"kind": "dicomweb", "url": "file:///etc"}, "pattern"),
        ({"kind": "pacs"}, "dicomweb"),
    ],
)
def test_what_does_not_go_together_is_said(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SourceSettings.model_validate(given)


def test_the_text_of_a_failure_is_bounded(tmp_path: Path) -> None:
    settings = {"kind": "folder", "folder": str(tmp_path), "token_file": f"/{'x' * 5000}"}
    told: list[Mapping[str, Any]] = []
    run({"what": "poll", "settings": settings, "data": str(tmp_path), "state": str(tmp_path / "state")}, told.append)
    assert [(said["failed"], len(said["text"])) for said in told] == [("no-token", 500)]


def test_a_wrong_key_is_named_with_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site.toml").write_text(
        '[site]\nsite_name = "a"\nsite_data = "/data"\n[site.source]\nkind = "folder"\nfolder = "/b"\npol_s = 1\n'
    )
    monkeypatch.setenv("FEDBUS_CONFIG", str(tmp_path / "site.toml"))
    with pytest.raises(SettingsError, match=r"source\.pol_s: .*\[site\.source\]"):
        SiteSettings.load()


def test_the_settings_file_has_every_key_at_its_default() -> None:
    commented = SITE_TOML.read_text().split("# [site.source]\n")[1]
    keys = tomllib.loads("\n".join(line[2:] for line in commented.splitlines() if " = " in line))
    assert keys.keys() == SourceSettings.model_fields.keys()
    for name, field in SourceSettings.model_fields.items():
        if field.default is not None and not field.is_required():
            assert keys[name] == field.default
