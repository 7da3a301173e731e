"""`fedbus demo` as people run it: a process with a terminal or a pipe, a real RabbitMQ, signals from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fedbus.demo.run import broker_elsewhere, check_writable, workspace
from fedbus.errors import NodeError, SettingsError
from fedbus.tasks.heart_disease_data import HOSPITALS
from tests.other_processes import command, commands, with_temporary_folder

Demo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Starts `fedbus demo`; everything it starts inherits TMPDIR, by which `left_behind` knows it."""
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "tmp").mkdir()

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", "from fedbus.cli.app import main; main()", "demo", *arguments],
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def processes(tmp_path: Path) -> list[psutil.Process]:
    """Live processes of the demo in `tmp_path`."""
    return list(with_temporary_folder(tmp_path / "tmp"))


def left_behind(tmp_path: Path) -> list[str]:
    """Processes and folders of a demo that has ended."""
    return commands(processes(tmp_path)) + [p.name for p in tmp_path.glob("tmp/fedbus-*")]


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read what the demo prints until `text` comes."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"{text!r} never came:\n{''.join(seen)}")


def test_four_hospitals_train_together_while_one_joins_and_one_leaves_and_comes_back(demo, tmp_path):
    # given
    kept = tmp_path / "kept"
    process = demo("--json", str(tmp_path / "facts.json"), "--keep", str(kept))
    # when
    out, err = process.communicate()
    # then
    assert (process.returncode, err) == (0, ""), out
    facts = json.loads((tmp_path / "facts.json").read_text())
    check_numbers(facts)
    check_events(facts["events"])
    assert all(f"\n{hospital} " in out for hospital in HOSPITALS), out
    assert {"job.yaml", "data", "logs", "aggregator"} <= {path.name for path in kept.iterdir()}
    assert left_behind(tmp_path) == []


def check_numbers(facts) -> None:
    assert facts["versions"] == 40
    # how many make a version follows from who is there
    assert 40 < facts["updates"] == sum(found["updates"] for found in facts["hospitals"].values())
    assert {name: found["patients"] for name, found in facts["hospitals"].items()} == {
        "cleveland": 303,
        "hungary": 294,
        "switzerland": 123,
        "va-long-beach": 200,
    }
    for found in facts["hospitals"].values():
        assert all(0.5 < auc <= 1 for auc in found["auc"].values()), found
    # What the demo is to show; the differences are many times those between runs.
    assert facts["hospitals"]["hungary"]["auc"]["federated"] > 0.9
    va = facts["hospitals"]["va-long-beach"]["auc"]
    assert va["federated"] > va["local_only"]
    assert 0 < facts["bytes"]["versions"] < facts["bytes"]["updates"] < 20_000


def check_events(events) -> None:
    assert events["joined_late"]["site"] == "va-long-beach"
    assert 0 < events["joined_late"]["version"] < 40
    assert events["left"]["site"] == events["came_back"]["site"] == "hungary"
    assert 0 < events["left"]["version"] < events["came_back"]["version"] <= 40


def test_ctrl_c_during_training_leaves_nothing_behind(demo, tmp_path):
    # given
    process = demo()
    read_until(process, "training begins")
    # when
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    # then
    assert process.returncode == 130
    assert "stopped by SIGINT" in err
    assert left_behind(tmp_path) == []


def test_sigterm_while_rabbitmq_starts_leaves_nothing_behind(demo, tmp_path):
    # given
    process = demo()
    read_until(process, "RabbitMQ starts")
    # when
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    # then
    assert process.returncode == 143
    assert "stopped by SIGTERM" in err
    assert left_behind(tmp_path) == []


def test_a_daemon_that_dies_ends_the_demo_with_its_name(demo, tmp_path):
    # given
    process = demo()
    read_until(process, "switzerland: the process starts")
    # when
    (aggregator,) = (p for p in processes(tmp_path) if "aggregator" in command(p))
    aggregator.kill()
    _, err = process.communicate()
    # then
    assert process.returncode == 1
    assert "the process of aggregator has died" in err
    assert left_behind(tmp_path) == []


def test_a_folder_to_keep_must_be_empty(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(SettingsError, match="the folder is not empty"), workspace(tmp_path):
        pass


@pytest.mark.parametrize("file", [".", "no/such/folder/facts.json"])
def test_a_json_file_that_cannot_be_written_is_said_before_the_training(tmp_path, file):
    with pytest.raises(SettingsError, match="cannot be written"):
        check_writable(tmp_path / file)


def test_without_rabbitmq_the_demo_says_what_to_do():
    def find() -> Path:
        raise NodeError("RabbitMQ is not installed here")

    with pytest.raises(NodeError, match="apt-get install rabbitmq-server"):
        broker_elsewhere({"FEDBUS_BROKER_URL": "amqp://guest:guest@localhost"}, find)


def test_a_url_with_a_place_for_the_login_names_a_broker_elsewhere():
    url_for = broker_elsewhere({"FEDBUS_BROKER_URL": "amqps://{login}:secret@hub/fedbus"})
    assert url_for is not None
    assert url_for("hungary") == "amqps://hungary:secret@hub/fedbus"
