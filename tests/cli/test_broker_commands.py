"""`fedbus broker` without a running node: what it prints, writes and returns."""

from __future__ import annotations

import json
import stat

import pytest
from typer.testing import CliRunner

from fedbus.cli.broker import broker_app


@pytest.fixture
def fedbus_broker(tmp_path):
    def call(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(broker_app, arguments, env={"FEDBUS_HOME": str(tmp_path / "home")})
        assert result.exit_code == code, result.output
        return result.output

    return call


def test_status_of_a_node_that_does_not_run_has_exit_code_3(fedbus_broker, tmp_path):
    assert f"{tmp_path}/home/broker does not run" in fedbus_broker("status", code=3)


def test_status_as_json(fedbus_broker, tmp_path):
    found = json.loads(fedbus_broker("status", "--dir", str(tmp_path), "-o", "json", code=3))
    assert found == {
        "running": False,
        "base": str(tmp_path),
        "pid": None,
        "port": None,
        "since": None,
        "tls": False,
        "logins": [],
        "alarms": [],
        "members": [],
    }


def test_stop_of_a_node_that_does_not_run_is_no_error(fedbus_broker):
    assert "did not run" in fedbus_broker("stop")


def test_definitions_for_a_broker_elsewhere(fedbus_broker, tmp_path):
    # when definitions are written for two sites
    fedbus_broker("definitions", str(tmp_path), "--address", "broker:5671", "--site", "mercy", "--site", "ucsf")
    # then each login has an environment file of its own, and the broker a file without passwords
    url = (tmp_path / "env" / "mercy.env").read_text().strip().removeprefix("FEDBUS_BROKER_URL=")
    users = json.loads((tmp_path / "definitions.json").read_text())["users"]
    assert url.startswith("amqps://mercy:")
    assert url.endswith("@broker:5671/fedbus")
    assert stat.S_IMODE((tmp_path / "env" / "mercy.env").stat().st_mode) == 0o600
    assert {user["name"] for user in users} == {"aggregator", "submitter", "mercy", "ucsf"}
    assert url.split(":")[2].split("@")[0] not in (tmp_path / "definitions.json").read_text()


def test_definitions_for_an_address_elsewhere_turn_the_urls_of_the_release_before_into_tls(fedbus_broker, tmp_path):
    # given a login file that was written when plain AMQP was allowed everywhere
    (tmp_path / "logins").mkdir()
    (tmp_path / "logins" / "mercy.url").write_text("amqp://mercy:open-sesame@broker:5672/fedbus\n")
    # when the definitions are written again, with the port where the broker speaks TLS
    fedbus_broker("definitions", str(tmp_path), "--address", "broker")
    # then the password is the same, and the way there has TLS
    url = (tmp_path / "env" / "mercy.env").read_text().strip()
    assert url == "FEDBUS_BROKER_URL=amqps://mercy:open-sesame@broker:5671/fedbus"


def test_definitions_for_loopback_have_no_tls(fedbus_broker, tmp_path):
    fedbus_broker("definitions", str(tmp_path), "--address", "127.0.0.1", "--site", "mercy")
    assert "=amqp://mercy:" in (tmp_path / "env" / "mercy.env").read_text()


def test_definitions_written_again_keep_the_passwords(fedbus_broker, tmp_path):
    arguments = ("definitions", str(tmp_path), "--address", "broker:5671", "--site", "mercy")
    fedbus_broker(*arguments)
    before = (tmp_path / "env" / "mercy.env").read_text()
    fedbus_broker(*arguments, "--site", "ucsf")
    assert (tmp_path / "env" / "mercy.env").read_text() == before


def test_definitions_for_fewer_sites_take_the_login_of_the_one_left_out(fedbus_broker, tmp_path):
    # given definitions for two sites
    first = ("definitions", str(tmp_path), "--address", "broker:5671", "--site", "mercy")
    fedbus_broker(*first, "--site", "ucsf")
    kept = (tmp_path / "env" / "mercy.env").read_text()
    # when they are written for one
    said = fedbus_broker(*first)
    # then nothing of the other is left, and it is said what the broker must be told
    content = json.loads((tmp_path / "definitions.json").read_text())
    assert "ucsf" not in json.dumps(content)
    assert not list(tmp_path.rglob("ucsf*"))
    assert (tmp_path / "env" / "mercy.env").read_text() == kept
    assert "rabbitmqctl delete_user ucsf" in said
    assert "rabbitmqctl delete_queue fedbus.site.ucsf -p fedbus" in said


def test_definitions_without_a_site_keep_those_that_are_there(fedbus_broker, tmp_path):
    arguments = ("definitions", str(tmp_path), "--address", "broker:5671")
    fedbus_broker(*arguments, "--site", "mercy")
    before = (tmp_path / "env" / "mercy.env").read_text()
    said = fedbus_broker(*arguments)
    assert (tmp_path / "env" / "mercy.env").read_text() == before
    assert "rabbitmqctl" not in said


def test_definitions_give_one_login_another_password(fedbus_broker, tmp_path):
    arguments = ("definitions", str(tmp_path), "--address", "broker:5671")
    fedbus_broker(*arguments, "--site", "mercy", "--site", "ucsf")
    before = {path.stem: path.read_text() for path in (tmp_path / "env").iterdir()}
    said = fedbus_broker(*arguments, "--rotate", "mercy")
    after = {path.stem: path.read_text() for path in (tmp_path / "env").iterdir()}
    assert {name for name, url in after.items() if url != before[name]} == {"mercy"}
    assert "rabbitmqctl close_all_user_connections mercy rotated" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--address", "broker:5671", "--rotate", "nobody"), "there is no login nobody"),
        (("--address", "broker:port"), "expected HOST:PORT"),
        (("--address", "amqp://broker"), "expected HOST:PORT"),
    ],
)
def test_definitions_say_what_is_wrong(tmp_path, arguments, says):
    result = CliRunner().invoke(broker_app, ["definitions", str(tmp_path), *arguments])
    assert says in str(result.exception)


@pytest.mark.parametrize("command", ["remove-site", "rotate"])
def test_a_node_that_does_not_run_is_to_be_started_first(tmp_path, command):
    result = CliRunner().invoke(broker_app, [command, "mercy", "--dir", str(tmp_path)])
    assert "start it with `fedbus broker start`, then give this command again" in str(result.exception)
