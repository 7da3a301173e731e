"""What an operator gets with each daemon: a settings file with every key, a unit that starts it, a health check."""

from __future__ import annotations

import configparser
import socket
import subprocess
import sys
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


@pytest.mark.parametrize(("daemon", "file"), [("aggregator", "aggregator.toml"), ("site", "site.toml")])
def test_the_health_check_finds_the_broker_as_the_daemon_does(
    daemon: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> int:
        command = [sys.executable, "-m", f"services.{daemon}.healthcheck"]
        return subprocess.run(command, cwd=SERVICES.parent, capture_output=True, check=False).returncode

    # given a settings file whose table names the broker
    with socket.create_server(("127.0.0.1", 0)) as broker:
        port = broker.getsockname()[1]
        text = (SERVICES / daemon / file).read_text()
        url = f'broker_url = "amqp://x:y@127.0.0.1:{port}/fedbus"'
        (tmp_path / file).write_text(text.replace(f"[{daemon}]", f"[{daemon}]\n{url}"))
        monkeypatch.setenv("FEDBUS_CONFIG", str(tmp_path / file))
        assert check() == 1
        with socket.create_connection(("127.0.0.1", port)):
            assert check() == 0
    # and a wrong setting is neither
    monkeypatch.setenv("FEDBUS_CONFIG", str(tmp_path / "gone.toml"))
    assert check() == 2
