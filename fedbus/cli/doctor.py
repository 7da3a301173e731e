"""`fedbus doctor`: what is wrong between this machine and its federation, one line a check."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli.broker import Output
from fedbus.cli.jobs import BrokerUrl, Format, Kit
from fedbus.cli.names import check_names, use_kit

if TYPE_CHECKING:
    from fedbus.doctor.finding import Finding

SIGNS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skipped": "-   "}
COLORS = {"ok": "green", "warn": "yellow", "fail": "red", "skipped": "dim"}


class As(StrEnum):
    SITE = "site"
    AGGREGATOR = "aggregator"
    SUBMITTER = "submitter"


def doctor(
    kit: Kit = None,
    role: Annotated[
        As | None, typer.Option("--as", help="Whose settings are examined.", show_default="as the settings say")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="For health checks: log in to nothing, import no task; 8 s at most.")
    ] = False,
    output: Format = Output.TEXT,
    broker_url: BrokerUrl = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with a site's data, as `fedbus site` will be given it.")
    ] = None,
) -> None:
    """Check settings, kit, network, TLS, login, broker, machine and tasks; each line says what to do.

    Changes nothing and publishes nothing; 30 s at most. Exit code 0: fine, or warnings only. Else the first area in
    which something failed: 11 config, 12 network, 13 tls, 14 login, 15 broker, 16 machine, 17 tasks.
    """
    from fedbus.doctor.examine import SETTINGS, examine
    from fedbus.doctor.finding import exit_code
    from fedbus.errors import SettingsError
    from fedbus.runtime.logging import configure_logging
    from fedbus.trust.subjects import Role

    configure_logging("error")
    findings: Iterable[Finding]
    try:
        check_names()
        use_kit(kit)
        if data is not None:
            os.environ["FEDBUS_SITE_DATA"] = str(data)
        findings = examine(role=Role(role) if role else None, kit=kit, broker_url=broker_url, quick=quick)
    except SettingsError as exc:
        findings = [SETTINGS.fail(str(exc), "")]
    found = []
    for finding in findings:
        found.append(finding)
        if output is Output.TEXT:
            _show(finding)
    if output is Output.JSON:
        from dataclasses import asdict

        typer.echo(json.dumps({"code": exit_code(found), "findings": [asdict(each) for each in found]}, indent=1))
    raise typer.Exit(exit_code(found))


def _show(finding: Finding) -> None:
    from rich.table import Table
    from rich.text import Text

    from fedbus.runtime.terminal import Terminal, said

    row = Table.grid(padding=(0, 1))
    row.add_column(width=4, no_wrap=True)
    row.add_column(width=18, no_wrap=True)
    row.add_column(overflow="fold")
    lines = [*finding.text.split("\n"), *([f"→ {finding.fix}"] if finding.fix else [])]
    text = Text("\n").join(said(line) for line in lines)
    row.add_row(Text(SIGNS[finding.status], style=COLORS[finding.status]), said(finding.check), text)
    Terminal().print(row)
