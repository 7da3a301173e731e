"""`fedbus doctor` as people and scripts call it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fedbus.bus.url import BrokerUrl
from fedbus.store.lock import StateLock
from fedbus.trust.authority import Authority
from tests.small_federation import subject, write_kit

PROGRAM = Path(sys.executable).with_name("fedbus")
NOW = datetime.now(UTC)


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("FEDBUS_")}
        settings = {"FEDBUS_HOME": str(tmp_path / "home"), "COLUMNS": "80"} | env
        return subprocess.run(
            [PROGRAM, "doctor", *arguments],
            env=ours | settings,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept())

        Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def by_check(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {each["check"]: each for each in json.loads(done.stdout)["findings"]}


def test_a_submitter_on_one_machine_is_fine(doctor, vhost):
    done = doctor(FEDBUS_BROKER_URL=vhost.url("submitter"))
    assert done.returncode == 0, done.stdout
    assert "submitter may do what it must" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_password_is_in_no_line(doctor, vhost):
    url = vhost.url("site-a")
    done = doctor("-o", "json", FEDBUS_BROKER_URL=url)
    password = url.split(":")[2].split("@")[0]
    assert password not in done.stdout + done.stderr


def test_settings_that_lack_a_broker_are_exit_code_11(doctor):
    done = doctor("-o", "json")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (11, 11)


def test_a_misspelt_setting_is_a_finding(doctor):
    done = doctor(FEDBUS_BROKER_ULR="x")
    assert (done.returncode, "FEDBUS_BROKER_URL?" in done.stdout) == (11, True)


def test_a_port_that_nobody_listens_on_is_exit_code_12_and_nothing_after_it_is_tried(doctor):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = doctor("-o", "json", FEDBUS_BROKER_URL=f"amqp://mercy:secret@127.0.0.1:{port}/fedbus")
    assert done.returncode == 12
    assert not {"tls", "login", "broker"} & by_check(done).keys()


def test_a_broker_that_hangs_ends_the_doctor_in_time(doctor, silent):
    done = doctor(FEDBUS_BROKER_URL=f"amqp://mercy:secret@127.0.0.1:{silent}/fedbus")
    assert done.returncode == 15
    assert "no answer within 10 s" in " ".join(done.stdout.split())


def test_quick_asks_the_kernel_for_the_connection_of_a_daemon_that_runs(doctor, silent, tmp_path):
    # given a daemon, here this process, that holds its folder
    settings = {"FEDBUS_BROKER_URL": f"amqp://mercy:secret@127.0.0.1:{silent}/fedbus", "FEDBUS_SITE_NAME": "mercy"}
    folder = tmp_path / "home" / "sites" / "mercy"
    folder.mkdir(parents=True)
    arguments = ("--quick", "-o", "json", "--data", tmp_path)
    with StateLock(folder):
        # when it is not connected, the way to the broker is looked at
        assert by_check(doctor(*arguments, **settings))["port"]["status"] == "ok"
        # and when it is, nobody is disturbed
        with socket.create_connection(("127.0.0.1", silent)):
            done = doctor(*arguments, **settings)
    found = by_check(done)
    assert done.returncode == 0
    assert found["connection"]["text"] == f"process {os.getpid()} holds 1 to 127.0.0.1:{silent}"
    assert not {"name", "port", "tls"} & set(found)


def test_quick_logs_in_to_nothing(doctor, silent):
    done = doctor("--quick", "-o", "json", FEDBUS_BROKER_URL=f"amqp://mercy:secret@127.0.0.1:{silent}/fedbus")
    assert done.returncode == 0
    assert "login" not in by_check(done)


def test_a_kit_that_is_wrong_is_tried_at_no_broker(doctor, silent, tmp_path):
    # given a kit whose certificate has expired
    kit = tmp_path / "kit"
    write_kit(kit, Authority.new("hearts", at=NOW - timedelta(days=90)), subject("mercy"), at=NOW - timedelta(days=60))
    url = f"amqps://localhost:{silent}/fedbus"
    (kit / "site.toml").write_text(f'[site]\nsite_name = "mercy"\nsite_data = "."\nbroker_url = "{url}"\n')
    done = doctor("-o", "json", "--quick", "--kit", kit)
    found = by_check(done)
    assert done.returncode == 11
    assert "expired" in found["certificate"]["text"]
    assert found["connection"]["status"] == "skipped"
    assert "tls" not in found


def test_a_kit_without_the_folder_of_its_data_is_examined_all_the_same(doctor, silent, tmp_path):
    kit = tmp_path / "kit"
    write_kit(kit, Authority.new("hearts", at=NOW), subject("mercy"))
    (kit / "site.toml").write_text(f'[site]\nsite_name = "mercy"\nbroker_url = "amqps://127.0.0.2:{silent}/fedbus"\n')
    done = doctor("-o", "json", "--quick", FEDBUS_KIT=str(kit))
    found = by_check(done)
    assert (found["certificate"]["status"], found["port"]["status"]) == ("ok", "fail")
    assert "site_data" in found["data"]["text"]


def test_of_several_places_one_that_answers_is_enough(doctor, vhost, unused_tcp_port):
    # given a broker of two places, at one of which nothing listens
    url = BrokerUrl.parse(vhost.url("submitter"))
    both = url.at([("127.0.0.1", unused_tcp_port), (url.host, url.port)]).with_password()
    # when the doctor looks
    done = doctor("-o", "json", FEDBUS_BROKER_URL=both)
    # then the one that is silent is a warning, and it is said which answers
    found = by_check(done)
    assert done.returncode == 0, done.stdout
    assert (found["port 1"]["status"], found["port 2"]["status"]) == ("warn", "ok")
    assert f"1 of 2 answer: {url.address}; not 127.0.0.1:{unused_tcp_port}" in found["places"]["text"]
    assert url.address in found["login"]["text"]
