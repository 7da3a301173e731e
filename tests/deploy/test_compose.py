"""The compose files: valid alone and merged, and whatever they name exists: folders, settings, commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .compose import COMPOSE, ROOT, env_of, environment_of, merged, mounts_of
from .conftest import parse

STACKS = {
    "coordinator": ("coordinator.yml",),
    "coordinator, page on the network": ("coordinator.yml", "tls.yml"),
    "coordinator with monitoring": ("coordinator.yml", "monitoring.yml"),
    "site": ("site.yml",),
    "site with monitoring": ("site.yml", "site.monitoring.yml"),
    "site with GPUs": ("site.yml", "site.gpu.yml"),
    "one machine": ("../../compose.yaml",),
}
OURS = re.compile(r"fedbus(:.*)?$")


@pytest.fixture(scope="module")
def variables(hearts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As .env.example says it, with folders that are there."""
    data = tmp_path_factory.mktemp("data")
    found = {"FEDERATION": str(hearts), "KIT": str(hearts / "sites" / "mercy"), "DATA": str(data)}
    found |= {"PAGE_KIT": str(hearts / "submitters" / "page"), "PAGE_CERT": "cert", "PAGE_KEY": "key"}
    return env_of(COMPOSE / ".env.example") | found


@pytest.fixture(params=STACKS)
def services(request: pytest.FixtureRequest, variables: dict[str, str]) -> dict[str, dict[str, Any]]:
    model = merged([COMPOSE / name for name in STACKS[request.param]], variables)
    return model["services"]  # type: ignore[no-any-return]


def ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: each for name, each in services.items() if OURS.match(each["image"])}


def test_each_file_and_each_stack_is_what_compose_takes(variables: dict[str, str], tmp_path: Path) -> None:
    for number, names in enumerate(STACKS.values()):
        model = merged([COMPOSE / name for name in names], variables)
        (tmp_path / f"{number}.yml").write_text(yaml.safe_dump(model))
    files = [ROOT / "compose.yaml", *COMPOSE.glob("*.yml"), *tmp_path.glob("*.yml")]
    command = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_variable_is_a_setting_and_every_command_parses(
    services: dict[str, dict[str, Any]], known_variables: set[str]
) -> None:
    for name, service in services.items():
        assert {key for key in environment_of(service) if key.startswith("FEDBUS_")} <= known_variables, name
    for name, service in ours(services).items():
        assert parse(service["command"]).split()[1] in ("aggregator", "site", "web"), name


def test_every_folder_that_is_mounted_exists(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        for source, _, _ in mounts_of(service):
            if source.startswith("./"):  # made by the reader: logins and data of compose.yaml
                assert (ROOT / source).exists() or source.startswith(("./deploy/rabbitmq/generated", "./data"))
                continue
            if source.startswith(".."):
                assert (COMPOSE / source).is_dir()
            elif source.startswith("/"):
                assert Path(source).exists(), source


def test_what_is_ours_has_no_rights_that_it_does_not_need(services: dict[str, dict[str, Any]]) -> None:
    for name, service in ours(services).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {target for _, target, writable in mounts_of(service) if writable} <= {"/state", "/kit"}


def test_a_site_has_no_port_and_the_coordinator_one(variables: dict[str, str]) -> None:
    opened = {}
    for name, files in STACKS.items():
        found = merged([COMPOSE / file for file in files], variables)["services"].values()
        ports = [port for service in found for port in service.get("ports", [])]
        opened[name] = [port for port in ports if not port.startswith("127.0.0.1:")]
    on_the_network = {name: ports for name, ports in opened.items() if ports}
    assert on_the_network == {
        "coordinator": ["5671:5671"],
        "coordinator with monitoring": ["5671:5671"],
        "coordinator, page on the network": ["5671:5671", "443:8765"],
    }
    assert "ports" not in merged([COMPOSE / "site.yml"], variables)["services"]["site"]


def test_the_broker_finds_what_its_configuration_names(variables: dict[str, str], hearts: Path) -> None:
    broker = merged([COMPOSE / "coordinator.yml"], variables)["services"]["broker"]
    named = re.findall(r"/etc/fedbus/broker/[\w./]+", str(broker["environment"]))
    for file in ("rabbitmq.conf", "advanced.config"):
        named += re.findall(r"/etc/fedbus/broker/[\w./]+", (hearts / "broker" / file).read_text())
    assert len(named) > 6
    for path in named:
        assert (hearts / "broker" / Path(path).relative_to("/etc/fedbus/broker")).exists(), path
    # and the name in its certificate leads to it
    (host,) = broker["networks"]["default"]["aliases"]
    assert f"//{host}:" in (hearts / "sites" / "mercy" / "site.toml").read_text()


def test_what_is_not_given_is_asked_for() -> None:
    with pytest.raises(KeyError, match="the folder of the kit"):
        merged([COMPOSE / "site.yml"], {})
