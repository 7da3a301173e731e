"""What an operator gets with each daemon: a settings file with every key, a unit that starts it."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path

import pytest
import typer

from fedbus.aggregator.settings import AggregatorSettings
from fedbus.cli import commands
from fedbus.console.settings import SubmitterSettings
from fedbus.runtime.settings import DaemonSettings
from fedbus.site.settings import SiteSettings

SERVICES = Path(__file__).parents[2] / "services"
FILES = [
    (AggregatorSettings, "aggregator/aggregator.toml"),
    (SiteSettings, "site/site.toml"),
    (SubmitterSettings, "publisher/submitter.toml"),
]


@pytest.mark.parametrize(("daemon", "file"), FILES, ids=["aggregator", "site", "submitter"])
def test_the_settings_file_has_every_key_at_its_default(
    daemon: type[DaemonSettings], file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (SERVICES / file).read_text()
    content = tomllib.loads(text)
    given = {k: v for k, v in content.items() if k != daemon.table} | content[daemon.table]
    for name, field in daemon.model_fields.items():
        if field.is_required():
            assert name in given
        elif field.default is None or field.default_factory:
            assert f"# {name} = " in text, "a key without a default stands there as a comment"
        else:
            assert given[name] == field.default
    # and a daemon reads it
    monkeypatch.setenv("FEDBUS_CONFIG", str(SERVICES / file))
    assert daemon.load().log_level == "info"


@pytest.mark.parametrize("daemon", ["aggregator", "site"])
def test_the_unit_starts_the_daemon_and_does_not_restart_a_wrong_setting(daemon: str) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((SERVICES / daemon / f"fedbus-{daemon}.service").read_text())
    program, command = unit["Service"]["ExecStart"].rsplit("/", 1)[1].split()
    assert program == "fedbus"
    assert command in typer.main.get_command(commands.app).commands  # type: ignore[attr-defined]
    assert unit["Service"]["RestartPreventExitStatus"] == "2"
