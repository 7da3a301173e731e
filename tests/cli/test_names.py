"""A setting that nobody reads is said: misspelt in the environment, or anything unknown in the settings file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedbus.aggregator.settings import AggregatorSettings
from fedbus.cli.names import check_names
from fedbus.errors import SettingsError
from fedbus.runtime.settings import anothers
from fedbus.site.settings import SiteSettings


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the developer's own shell."""
    for name in [n for n in os.environ if n.startswith("FEDBUS_")]:
        monkeypatch.delenv(name)


def problems() -> list[str]:
    with pytest.raises(SettingsError) as caught:
        check_names()
    return str(caught.value).splitlines()


# ------------------------------------------------------------------ variables


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FEDBUS_BROKER_URI", "FEDBUS_BROKER_URL"),
        ("FEDBUS_BROKER", "FEDBUS_BROKER_URL"),
        ("FEDBUS_HOM", "FEDBUS_HOME"),
        ("FEDBUS_THREAD", "FEDBUS_THREADS"),
        ("FEDBUS_LOGLEVEL", "FEDBUS_LOG_LEVEL"),
        ("FEDBUS_STATUS_INTERVAL", "FEDBUS_STATUS_INTERVAL_S"),
        ("FEDBUS_DATA", "FEDBUS_SITE_DATA"),
        ("FEDBUS_NAME", "FEDBUS_SITE_NAME"),
        ("fedbus_thread", "FEDBUS_THREADS"),
    ],
)
def test_a_misspelt_variable_is_an_error_with_the_name_that_was_meant(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    assert problems() == [f"{name}: no such setting; did you mean {meant}?"]


def test_every_variable_that_something_reads_is_known(monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    names = ["HOME", "BROKER_URL_FILE", "BROKER_URL", "FAULT", "SITE_NAME", "KEEP_UPDATES", "TIMEOUT_S", "tasks"]
    for name in names:
        monkeypatch.setenv(f"FEDBUS_{name}", "x")
    check_names()
    assert capsys.readouterr() == ("", "")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "name",
    [
        "FEDBUS_PORT",
        "FEDBUS_SERVICE_HOST",
        "FEDBUS_PORT_5672_TCP_ADDR",
        "FEDBUS_BROKER_PORT",
        "FEDBUS_SITE_SERVICE_PORT",
        "FEDBUS_AGGREGATOR_PORT",
    ],
)
def test_a_variable_of_somebody_else_is_told_and_no_error(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: object
) -> None:
    """Kubernetes sets these in every pod, when services are called fedbus, fedbus-broker, fedbus-site."""
    monkeypatch.setenv(name, "x")
    check_names()
    said = capsys.readouterr().err  # type: ignore[attr-defined]
    assert said == f"fedbus: {name} is no setting of fedbus: nothing reads it\n"


# ------------------------------------------------------------------ the file


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[stie]\nthreads = 2\n", "no such table: [stie]; did you mean site?"),
        ("[worker]\n", "no such table: [worker]; known: aggregator, site, submitter"),
        ("[site]\nthread = 2\n", "no such setting in [site]: thread; did you mean threads?"),
        ("[submitter]\ntimeout = 2\n", "no such setting in [submitter]: timeout; did you mean timeout_s?"),
        ("log_levle = 'info'\n", "no such setting: log_levle; did you mean log_level?"),
        ("[aggregator]\nxyzzy = 'x'\n", "no such setting in [aggregator]: xyzzy; known: "),
    ],
)
def test_what_is_unknown_in_the_file_is_an_error(
    content: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fedbus.toml"
    path.write_text(content)
    monkeypatch.setenv("FEDBUS_CONFIG", str(path))
    (said,) = problems()
    assert said.startswith(f"FEDBUS_CONFIG={path}: {says}")


def test_a_file_for_all_daemons_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fedbus.toml"
    path.write_text('threads = 2\nlog_level = "info"\n[site]\nsite_name = "a"\n[aggregator]\nkeep_updates = true\n')
    monkeypatch.setenv("FEDBUS_CONFIG", str(path))
    check_names()


# ------------------------------------------------------------------ who asks


@pytest.mark.parametrize(
    "command", [["fedbus.cli.app", "jobs"], ["services.site"], ["services.aggregator"], ["services.publisher", "x"]]
)
def test_daemons_and_commands_refuse_to_start_with_one(command: list[str]) -> None:
    code = "from fedbus.cli.app import main; main()"
    program = ["-c", code, *command[1:]] if command[0] == "fedbus.cli.app" else ["-m", *command]
    done = subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "FEDBUS_BROKER_URI": "amqp://a:open-sesame@b/c"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fedbus: FEDBUS_BROKER_URI: no such setting; did you mean FEDBUS_BROKER_URL?\n"


def test_a_variable_of_another_daemon_is_told_where_this_one_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBUS_STATE_DIR", "/srv/fedbus")
    monkeypatch.setenv("FEDBUS_KEEP_BYTES", "1")
    (text,) = anothers(SiteSettings)
    assert text == (
        "FEDBUS_STATE_DIR is another daemon's setting and not read here; this one's is FEDBUS_SITE_STATE_DIR"
    )
    assert anothers(AggregatorSettings) == []
