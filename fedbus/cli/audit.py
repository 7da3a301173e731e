"""`fedbus audit`: whether an audit log is what was written, what it tells, and which heads the aggregator keeps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbus.cli import completion
from fedbus.cli.broker import Output
from fedbus.cli.jobs import BrokerUrl, Format, with_client

if TYPE_CHECKING:
    from fedbus.store.audit_check import Verdict
    from fedbus.store.audit_line import Head

audit_app = typer.Typer(no_args_is_help=True, help="What left, when, to whom, and who did what: the logs of it.")

StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", metavar="DIR", help="A site's or the aggregator's.", show_default="the only one here"),
]
Site = Annotated[
    str | None,
    typer.Option(
        "--site", metavar="NAME", help="A site under $FEDBUS_HOME/sites.", autocompletion=completion.sites_here
    ),
]


@audit_app.command()
def verify(
    state_dir: StateDir = None,
    site: Site = None,
    heads: Annotated[
        list[str] | None,
        typer.Option("--head", metavar="SEQUENCE:HASH", help="What `fedbus audit heads` says elsewhere; may repeat."),
    ] = None,
    output: Format = Output.TEXT,
) -> None:
    """Name the first line that was cut, edited, swapped or inserted; exit code 1 when there is one."""
    from fedbus.console.audit import log_folder
    from fedbus.runtime.printable import printable
    from fedbus.store.audit_check import verify as verify_log

    wanted = [_head(text) for text in heads or ()]
    folder = log_folder(state_dir, site)
    verdict = verify_log(folder, wanted)
    if output is Output.JSON:
        typer.echo(json.dumps(_verdict_json(verdict), indent=1))
    else:
        for text in _sentences(folder, verdict, wanted):
            typer.echo(printable(text))
    raise typer.Exit(0 if verdict.fault is None else 1)


def _head(text: str) -> Head:
    from fedbus.errors import SettingsError
    from fedbus.store.audit_line import Head

    try:
        return Head.compared(text)
    except ValueError as exc:
        raise SettingsError(f"--head: {exc}") from exc


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "ok": verdict.fault is None,
        "lines": verdict.lines,
        "first": verdict.first,
        "head": str(verdict.head),
        "heads_found": verdict.heads,
        "fault": None if verdict.fault is None else str(verdict.fault),
        "notes": list(verdict.notes),
    }


def _sentences(folder: Path, verdict: Verdict, heads: list[Head]) -> list[str]:
    if verdict.fault is not None:
        return [f"NOT as it was written: {verdict.fault}", f"in {folder}; {verdict.lines} lines were read until then"]
    said = [
        f"{folder}: {verdict.lines} lines, {verdict.began[:10]} to {verdict.ended[:10]}, and the chain holds",
        *verdict.notes,
        f"head {verdict.head.short}",
    ]
    if heads:
        return [*said, f"{verdict.heads} of {len(heads)} heads that were given are in it"]
    return [
        *said,
        "no head was given: a log that was rewritten up to its end, or cut there, is told by a head alone",
        "(`fedbus audit heads`, asked by a submitter, or from the aggregator's people)",
    ]


@audit_app.command()
def show(
    state_dir: StateDir = None,
    site: Site = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="From a date in UTC, or an age such as 30d, on.")
    ] = None,
    job: Annotated[str | None, typer.Option(help="Only lines of this job.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only lines of this kind; once per kind.")] = None,
    last: Annotated[int, typer.Option(min=1, help="So many lines, the newest.")] = 100,
    output: Format = Output.TEXT,
) -> None:
    """Show what the log tells, and how many bytes left by it."""
    from fedbus.console.audit import Wanted, as_json, bytes_left, lines_in, log_folder, since_text

    wanted = Wanted(since=since_text(since) if since else "", job=job or "", kinds=frozenset(_kinds(kind or [])))
    lines = list(lines_in(log_folder(state_dir, site), wanted))
    if output is Output.JSON:
        typer.echo(json.dumps([as_json(line) for line in lines[-last:]], indent=1))
        return
    from fedbus.cli.audit_tables import lines_table
    from fedbus.cli.tables import print_tables

    print_tables(lines_table(lines[-last:], of=len(lines), left=bytes_left(lines)))


def _kinds(words: list[str]) -> list[str]:
    from fedbus.errors import SettingsError
    from fedbus.store.audit_kinds import Kind

    if unknown := sorted(set(words) - set(Kind)):
        raise SettingsError(f"--kind: no kind {', '.join(unknown)}; known: {', '.join(Kind)}")
    return words


@audit_app.command()
def heads(output: Format = Output.TEXT, broker_url: BrokerUrl = None) -> None:
    """Show where the audit log of each site was when the aggregator had its newest update."""
    found = with_client(lambda client: client.audit_heads(), broker_url)
    if output is Output.JSON:
        from fedbus.core.protocol.answers import as_json

        typer.echo(json.dumps(as_json(found), indent=1, sort_keys=True))
        return
    from fedbus.cli.audit_tables import heads_table
    from fedbus.cli.tables import print_tables

    print_tables(heads_table(found, now=time.time()))
