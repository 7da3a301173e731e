"""Commands that talk to the aggregator: submit, jobs, show, sites, watch, get, history, abort."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fedbus.cli.broker import Output
from fedbus.runtime.printable import printable, printable_lines

if TYPE_CHECKING:
    from fedbus.core.messages import Event
    from services.publisher.client import Client

R = TypeVar("R")

Format = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
BrokerUrl = Annotated[
    str | None, typer.Option("--broker-url", help="amqp(s)://user:password@host/vhost; better: FEDBUS_BROKER_URL.")
]
JobId = Annotated[str, typer.Argument(help="Id of the job, as `fedbus jobs` shows it.")]


def submit(
    spec: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="Job spec; - reads standard input.")],
    follow: Annotated[bool, typer.Option("--watch", help="--wait, then show what happens until the job ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until an aggregator has answered, however long.")] = False,
    broker_url: BrokerUrl = None,
) -> None:
    """Publish a job spec and print the job's id. Exit code 3: it is published, and no aggregator has answered yet."""
    from fedbus.core.jobspec import JobSpec
    from fedbus.errors import SettingsError, UnansweredError
    from services.publisher.client import new_job_id

    try:
        text = sys.stdin.read() if str(spec) == "-" else spec.read_text()
    except OSError as exc:
        raise SettingsError(f"cannot read job spec {spec}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"cannot read job spec {spec}: expected YAML in UTF-8, got other bytes ({exc})") from exc
    parsed = JobSpec.parse_yaml(text)

    job = new_job_id(parsed)

    def published(exc: UnansweredError) -> None:
        typer.echo(f"fedbus: {printable_lines(exc)}; waiting for the answer", err=True)

    async def run(client: Client) -> int:
        try:
            accepted = await client.submit(parsed, job=job, published=published if wait or follow else None)
        except UnansweredError:
            typer.echo(job)
            raise
        typer.echo(printable(accepted))
        return await _watch(client, accepted) if follow else 0

    raise typer.Exit(_with_client(run, broker_url))


def list_jobs(output: Format = Output.TEXT, broker_url: BrokerUrl = None) -> None:
    """List all jobs and why they wait."""
    rows = _with_client(lambda client: client.jobs(), broker_url)
    if output is Output.JSON:
        typer.echo(json.dumps(rows, indent=1))
    else:
        from fedbus.cli.tables import jobs_table, print_tables

        print_tables(jobs_table(rows))


def show(job: JobId, output: Format = Output.TEXT, broker_url: BrokerUrl = None) -> None:
    """Show one job: its state, sites, scores and result."""
    detail = _with_client(lambda client: client.job(job), broker_url)
    if output is Output.JSON:
        typer.echo(json.dumps(detail, indent=1))
    else:
        from fedbus.cli.tables import job_tables, print_tables

        print_tables(*job_tables(detail))


def list_sites(output: Format = Output.TEXT, broker_url: BrokerUrl = None) -> None:
    """List the sites: who is where, what they do, since when they are silent."""
    rows = _with_client(lambda client: client.sites(), broker_url)
    if output is Output.JSON:
        typer.echo(json.dumps(rows, indent=1))
    else:
        from fedbus.cli.tables import print_tables, sites_table

        print_tables(sites_table(rows))


def watch(job: JobId, output: Format = Output.TEXT, broker_url: BrokerUrl = None) -> None:
    """Show what happens in a job until it ends; exit code 0 when it finished, 1 otherwise."""
    as_json = output is Output.JSON
    raise typer.Exit(_with_client(lambda client: _watch(client, job, as_json=as_json), broker_url))


class HistoryOutput(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def history(
    job: JobId,
    output: Annotated[HistoryOutput, typer.Option("--output", "-o", help="How to print.")] = HistoryOutput.TABLE,
    broker_url: BrokerUrl = None,
) -> None:
    """Show the curve of a job: each version's time, contributors and metrics, their mean and of each site."""
    from fedbus.cli.curve import as_csv, curve_table
    from fedbus.cli.tables import print_tables

    lines = _with_client(lambda client: client.history(job), broker_url)
    match output:
        case HistoryOutput.JSON:
            typer.echo(json.dumps(lines, indent=1))
        case HistoryOutput.CSV:
            typer.echo(as_csv(lines), nl=False)
        case HistoryOutput.TABLE:
            print_tables(curve_table(lines))


def get(
    job: JobId,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The safetensors file to write.")],
    version: Annotated[str, typer.Option(metavar="best|last|N", help="Which version.")] = "last",
    broker_url: BrokerUrl = None,
) -> None:
    """Fetch the params of a job, also of one that is running, into a file on this machine."""
    from fedbus.errors import SettingsError

    if version not in ("best", "last") and not version.isdecimal():
        raise SettingsError(f"--version: expected best, last or the number of a version, got {printable(version)}")
    wanted = int(version) if version.isdecimal() else version
    progress = _show_progress if sys.stderr.isatty() else _no_progress
    fetched = _with_client(lambda client: client.get(job, wanted, to, progress=progress), broker_url)
    typer.echo(f"version {fetched.version} of {printable(job)}: {fetched.size_bytes} bytes in {printable(str(to))}")


def _show_progress(have_bytes: int, size_bytes: int) -> None:
    end = "\n" if have_bytes == size_bytes else ""
    typer.echo(f"\r{have_bytes / 2**20:.1f} of {size_bytes / 2**20:.1f} MiB{end}", nl=False, err=True)


def _no_progress(have_bytes: int, size_bytes: int) -> None:
    pass


def abort(
    job: JobId,
    reason: Annotated[str | None, typer.Option(help="Kept with the job and told to the sites.")] = None,
    broker_url: BrokerUrl = None,
) -> None:
    """End a running job."""
    _with_client(lambda client: client.abort(job, reason), broker_url)
    typer.echo(f"{printable(job)} is being aborted")


def _with_client(work: Callable[[Client], Awaitable[R]], broker_url: str | None) -> R:
    import asyncio

    from fedbus.runtime.logging import configure_logging
    from services.publisher.client import Client
    from services.publisher.settings import PublisherSettings

    settings = PublisherSettings.load(broker_url=broker_url)
    configure_logging("error", settings.log_format)

    async def run() -> R:
        async with Client(settings) as client:
            return await work(client)

    return asyncio.run(run())


async def _watch(client: Client, job: str, *, as_json: bool = False) -> int:
    detail: dict[str, Any] = await client.job(job)
    async for event in client.events(job, since=detail["submitted_at"]):
        print_event(event, as_json=as_json)
        if event.kind == "job-ended":
            return 0 if event.facts.get("state") == "finished" else 1
    return 1


def print_event(event: Event, *, as_json: bool) -> None:
    """Print one event as a line, for people or as JSON."""
    import dataclasses
    from datetime import datetime

    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(event)))
    else:
        at = datetime.fromtimestamp(event.at).astimezone()
        typer.echo(f"{at:%H:%M:%S}  {printable(event.kind):<18} {printable(event.text)}")
