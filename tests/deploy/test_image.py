"""The image: a Dockerfile that its linter takes, pinned as everything else is, and a health check that exists."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from .compose import ROOT
from .conftest import parse

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", joined, re.MULTILINE)


def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run(["hadolint", str(ROOT / "deploy/Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_it_has_two_targets_of_users_and_the_last_is_the_small_one() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)\n((?:(?!^FROM ).*\n)*)", DOCKERFILE, re.MULTILINE)
    assert [name for name, _ in stages][-2:] == ["cuda", "cpu"]
    assert all("USER 10001:10001" in body for name, body in stages if name in ("cuda", "cpu"))


def test_what_it_installs_is_pinned_as_in_the_setup_and_its_extras_exist() -> None:
    (pinned,) = set(re.findall(r"torch==[\d.]+", DOCKERFILE))
    assert pinned in (ROOT / "deploy/setup").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name for line in instructions("ARG") for name in line.partition("=")[2].split(",")} <= set(extras)
    for line in instructions("RUN"):
        assert "pip install" not in line or "--constraint" in line, line


def test_every_file_that_is_copied_is_there_and_let_in() -> None:
    let_in = {
        line[1:] for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text().split("\n") if line.startswith("!")
    }
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert set(copied) == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_the_health_check_and_the_command_are_commands_of_fedbus() -> None:
    (line,) = instructions("HEALTHCHECK")
    program, *arguments = json.loads(line.partition("CMD ")[2])
    assert [program] == json.loads(instructions("ENTRYPOINT")[0])
    assert parse(arguments) == "fedbus doctor"


@pytest.fixture
def entrypoint(tmp_path: Path) -> list[str]:
    """The image's, where `fedbus` prints what it is given."""
    (tmp_path / "fedbus").write_text('#!/bin/sh\necho "$FEDBUS_BROKER_URL $*"\n')
    (tmp_path / "fedbus").chmod(0o755)
    return ["env", f"PATH={tmp_path}:/usr/bin:/bin", "sh", str(ROOT / "deploy/entrypoint")]


def test_a_secret_in_a_file_is_no_argument_of_any_process(entrypoint: list[str], tmp_path: Path) -> None:
    (tmp_path / "url").write_text("amqps://a:b@c/d\n")
    command = ["env", f"FEDBUS_BROKER_URL_FILE={tmp_path / 'url'}", *entrypoint, "site"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "amqps://a:b@c/d site\n"
    # and one that cannot be read is said
    command[1] = f"FEDBUS_BROKER_URL_FILE={tmp_path / 'gone'}"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "gone" in done.stderr
