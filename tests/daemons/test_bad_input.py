"""What people get wrong, and what they read then: one message that says what to do, and an exit code."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from fedbus.broker.process import free_port
from fedbus.tasks.heart_disease import write_site_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that is fine."""
    write_site_data(tmp_path / "cleveland", "cleveland")
    return tmp_path / "cleveland"


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{password}@{parts.hostname}:{parts.port}"))


# ------------------------------------------------------------------ the broker


@pytest.mark.parametrize("login", ["aggregator", "cleveland"])
def test_daemon_with_a_wrong_password_says_so_tries_again_and_can_be_stopped(house, login):
    # given a daemon whose broker URL has a wrong password
    wrong = with_password(house.running.url(login), "guess")
    daemon = (
        house.start_aggregator(broker_url=wrong) if login == "aggregator" else house.start_site(login, broker_url=wrong)
    )
    # when it tries to log in
    said = daemon.wait_for("broker refused")["detail"]
    # then it says who was refused, where to correct that, and when it tries again, without the password
    assert f"refused user '{login}'" in said
    assert "FEDBUS_BROKER_URL" in said
    assert "next try in" in said
    assert "guess" not in daemon.log.read_text()
    # and a signal ends it
    assert house.terminate(daemon) == 0


def test_command_with_a_wrong_password_fails_at_once(house):
    said = house.fedbus("jobs", url=with_password(house.running.url("submitter"), "guess"))
    assert said.code == 1
    assert "refused user 'submitter'" in said.err
    assert "guess" not in said.err


def test_command_without_a_broker_says_where_it_looked(house):
    # given an address where nothing listens
    port = free_port()
    said = house.fedbus("jobs", url=f"amqp://submitter:x@127.0.0.1:{port}/fedbus", timeout_s=1)
    assert said.code == 1
    assert f"127.0.0.1:{port}" in said.err
    assert "Traceback" not in said.err


def test_daemon_without_a_broker_waits_for_it_and_can_be_stopped(house):
    # given an aggregator and no broker
    daemon = house.start_aggregator(broker_url=f"amqp://aggregator:x@127.0.0.1:{free_port()}/fedbus")
    # then it says how to start one, and a signal ends it
    assert "fedbus broker start" in daemon.wait_for("broker unreachable")["detail"]
    assert house.terminate(daemon) == 0


def test_command_without_an_aggregator_says_that_nobody_answers(house):
    said = house.fedbus("sites", timeout_s=1)
    assert said.code == 1
    assert "is the aggregator running?" in said.err


# ------------------------------------------------------------------ folders


@pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
def test_site_without_data_does_not_start(house, tmp_path, made):
    folder = tmp_path / "patients"
    if made:
        folder.mkdir()
    said = house.fedbus("site", "--name", "cleveland", "--data", str(folder), url=house.running.url("cleveland"))
    assert said.code == 1
    assert str(folder) in said.err
    assert "--data" in said.err


def test_site_whose_state_folder_is_a_file_does_not_start(house, data, tmp_path):
    in_the_way = tmp_path / "state"
    in_the_way.touch()
    said = house.fedbus(
        "site",
        "--name",
        "cleveland",
        "--data",
        str(data),
        url=house.running.url("cleveland"),
        site_state_dir=in_the_way,
    )
    assert said.code == 1
    assert f"cannot use folder {in_the_way}: a file is in the way" in said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_aggregator_whose_state_folder_cannot_be_written_does_not_start(house, tmp_path):
    locked = tmp_path / "state"
    locked.mkdir(mode=0o500)
    said = house.fedbus("aggregator", "--state-dir", str(locked), url=house.running.url("aggregator"))
    assert said.code == 1
    assert "permission denied" in said.err


# ------------------------------------------------------------------ names


def test_second_site_of_one_name_does_not_start_and_the_first_goes_on(house, data, tmp_path):
    # given a site
    house.start_aggregator()
    first = house.start_site("cleveland", status_interval_s=0.5)
    first.wait_for("site-ready")
    # when a second one is started under its name, elsewhere
    said = house.fedbus(
        "site",
        "--name",
        "cleveland",
        "--data",
        str(data),
        "--state-dir",
        str(tmp_path / "elsewhere"),
        "--status-interval-s",
        "0.5",
        url=house.running.url("cleveland"),
    )
    # then it gives up with the reason
    assert said.code == 1
    assert "a second daemon runs under the same name" in said.err
    # and the first is where it was
    assert house.site("cleveland")["state"] == "online"
    job = house.submit(stop={"versions": 1})
    house.ended(job)


def test_site_with_the_login_of_another_does_not_start(house, data):
    said = house.fedbus("site", "--name", "cleveland", "--data", str(data), url=house.running.url("hungary"))
    assert said.code == 2
    assert "site 'cleveland' must log in under its own name, the broker URL's login is 'hungary'" in said.err


# ------------------------------------------------------------------ settings and job specs


@pytest.mark.parametrize(
    ("arguments", "env", "names"),
    [
        (["site", "--name", "A b"], {}, ["site_name", "site_data"]),
        (["site", "--name", "a", "--data", ".", "--slowdown", "0.5"], {}, ["slowdown"]),
        (["site", "--name", "a", "--data", "."], {"threads": "many"}, ["threads"]),
        (["site", "--name", "cleveland", "--data", ".", "--task", "mri"], {}, ["mri", "heart_disease"]),
        (["aggregator"], {"score_timeout_s": "-1"}, ["score_timeout_s"]),
        (["aggregator", "--broker-url", "http://here"], {}, ["amqp"]),
        (["jobs"], {"config": "/nowhere.toml"}, ["FEDBUS_CONFIG=/nowhere.toml"]),
    ],
)
def test_wrong_setting_is_named(house, arguments, env, names):
    said = house.fedbus(*arguments, url=house.running.url("cleveland"), **env)
    assert said.code == 2, said.err
    assert not [name for name in names if name not in said.err], said.err
    assert "Traceback" not in said.err


def test_job_file_with_mistakes_is_refused_with_every_one_and_its_path(house):
    # given a job file with three mistakes
    text = "name: A job\ntask: heart_disease\nlocal: {steps: 0, batch_size: 8, learning_rate: 0.1}\nstop: {}\n"
    # when it is submitted
    said = house.fedbus("submit", "-", stdin=text)
    # then each stands on a line of its own with its path
    assert said.code == 1
    assert [line.split(":")[0].strip() for line in said.err.splitlines()[1:]] == ["name", "local.steps", "stop"]


def test_job_file_that_is_not_there_is_named(house):
    said = house.fedbus("submit", "nothing.yaml")
    assert said.code == 2
    assert "cannot read job spec nothing.yaml" in said.err


# ------------------------------------------------------------------ a task that makes another model


def test_site_whose_task_makes_another_model_gives_the_job_up_and_names_the_tensor(house, tmp_path, monkeypatch):
    # given two sites whose releases of a task disagree on the model
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("site_package")))
    folders = {"cleveland": tmp_path / "cleveland", "hungary": tmp_path / "hungary"}
    for width, folder in enumerate(folders.values(), start=4):
        folder.mkdir()
        (folder / "width").write_text(str(width))
    house.start_aggregator()
    house.start_site("cleveland", data=folders["cleveland"], step_delay_s=0.1)
    job = house.submit(task="ward", task_config={}, stop={"versions": 1000})
    house.committed(1)
    # when the second joins a job that has the model of the first
    house.start_site("hungary", data=folders["hungary"])
    # then it says which tensor differs and gives up
    trouble = house.aggregator.wait_for("trainer-trouble", site="hungary", job=job)
    assert "job's params have weight (1,4), this site's task makes (1,5)" in trouble["text"]
    assert "gives up" in trouble["text"]
    assert "weight (1,4)" in house.job(job)["declined"]["hungary"]
    # and the first goes on alone
    house.committed(house.job(job)["version"] + 2)
    assert {fact.update_id.site for fact in house.folded(job)} == {"cleveland"}
