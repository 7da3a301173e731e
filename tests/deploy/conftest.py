"""What checks of deployment files stand on: a federation that is provisioned as the pages tell, the settings' names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from fedbus.cli.commands import app
from fedbus.provision.federation import FederationFolder
from fedbus.provision.federation_file import FederationFile
from fedbus.runtime.settings import DaemonSettings

from .compose import COMPOSE

# What the entrypoint, the settings' sources and the runtime read themselves.
OTHERS = {"FEDBUS_HOME", "FEDBUS_CONFIG", "FEDBUS_BROKER_URL_FILE"}


@pytest.fixture(scope="session")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the example's federation, with every key in it."""
    folder = tmp_path_factory.mktemp("provisioned") / "hearts"
    file = FederationFile.load(COMPOSE / "federation.example.yaml")
    FederationFolder(folder).provision(file, now=datetime.now(UTC), with_keys=True)
    return folder


@pytest.fixture(scope="session")
def known_variables() -> set[str]:
    """Every FEDBUS_ variable that any daemon or command has."""
    import fedbus.aggregator.settings
    import fedbus.console.settings
    import fedbus.site.settings  # noqa: F401
    from fedbus.web.settings import PREFIX, WebSettings

    page = {f"{PREFIX}{name.upper()}" for name in WebSettings.model_fields}
    daemons = {f"FEDBUS_{name.upper()}" for daemon in _daemons(DaemonSettings) for name in daemon.model_fields}
    return OTHERS | page | daemons


def _daemons(base: type[DaemonSettings]) -> Iterator[type[DaemonSettings]]:
    yield base
    for each in base.__subclasses__():
        yield from _daemons(each)


def parse(arguments: Sequence[str]) -> str:
    """The command that `fedbus ARGUMENTS` runs; click's error for what it would not take."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("fedbus", list(arguments))
    while rest := [*context._protected_args, *context.args]:
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return str(context.command_path)
