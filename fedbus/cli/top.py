"""The command that shows a federation as a live table."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from fedbus.cli.jobs import BrokerUrl


def top(
    every_s: Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.2, help="How often to ask.")] = 2.0,
    broker_url: BrokerUrl = None,
) -> None:
    """Show jobs and sites as a live table: open one with Enter, filter with /, sort with s, `?` for all keys."""
    from fedbus.errors import SettingsError
    from fedbus.top.start import check_terminal, run_top

    check_terminal()
    if importlib.util.find_spec("textual") is None:
        raise SettingsError("fedbus top needs a package that is not installed here: pip install 'fedbus[top]'")
    raise typer.Exit(run_top(broker_url, every_s))
