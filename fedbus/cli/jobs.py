"""Commands that talk to the aggregator: submit, jobs, show, sites, watch, get, history, abort."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, TypeVar

import typer

from fedbus.cli import completion
from fedbus.cli.broker import Output
from fedbus.cli.spec_file import read_spec_text
from fedbus.runtime.printable import printable, printable_lines

if TYPE_CHECKING:
    from fedbus.console.client import Client
    from fedbus.console.fetch import Progress

R = TypeVar("R")
WAITING = ("submitted", "waiting")

Format = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]
BrokerUrl = Annotated[
    str | None,
    typer.Option(
        "--broker-url",
        help="amqps://host/vhost with a kit, or amqp(s)://user:password@host/vhost; better: FEDBUS_BROKER_URL.",
        show_default="the private node's of this machine",
    ),
]
Kit = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder from `fedbus provision`: certificate, key, settings.", show_default="FEDBUS_KIT"
    ),
]
JobId = Annotated[str, typer.Argument(help="Id of the job, as `fedbus jobs` shows it.", autocompletion=completion.jobs)]


def submit(
    spec: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="Job spec; - reads standard input.")],
    follow: Annotated[bool, typer.Option("--watch", help="--wait, then show what happens until the job ends.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until an aggregator has answered, however long.")] = False,
    broker_url: BrokerUrl = None,
) -> None:
    """Publish a job spec and print the job's id. Exit code 3: it is published, and no aggregator has answered yet."""
    from fedbus.console.client import new_job_id
    from fedbus.core.spec import kinds
    from fedbus.errors import UnansweredError

    text = read_spec_text(spec)
    parsed = kinds.parse_yaml(text)

    job = new_job_id(parsed)

    def published(exc: UnansweredError) -> None:
        typer.echo(f"fedbus: {printable_lines(exc)}; waiting for the answer", err=True)

    def note(text: str) -> None:
        typer.echo(f"note: {printable(text)}", err=True)

    async def run(client: Client) -> int:
        try:
            accepted = await client.submit(parsed, job=job, published=published if wait or follow else None, note=note)
        except UnansweredError:
            typer.echo(job)
            raise
        typer.echo(printable(accepted))
        completion.also(broker_url, accepted)
        if not follow:
            return 0
        from fedbus.cli.watch import watch_job

        return await watch_job(client, accepted)

    raise typer.Exit(with_client(run, broker_url))


def list_jobs(
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only jobs in this state, such as running; once per state.", show_default="all"),
    ] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, help="Only so many, the newest.", show_default="all")
    ] = None,
    output: Format = Output.TEXT,
    broker_url: BrokerUrl = None,
) -> None:
    """List the jobs and why they wait, oldest first."""
    wanted = _states(state)
    known = with_client(lambda client: client.jobs(), broker_url)
    completion.remember(broker_url, completion.JOBS, [(row.job, row.state) for row in reversed(known)])
    rows = [row for row in known if row.state in wanted]
    rows = rows[-last:] if last is not None else rows
    if output is Output.JSON:
        _print_json(rows)
    else:
        from fedbus.cli.tables import jobs_table, print_tables

        print_tables(jobs_table(rows))


def _states(words: Sequence[str] | None) -> frozenset[str]:
    """The states that are meant, each by its first word; all when none is given."""
    from fedbus.core.protocol.messages import JobState
    from fedbus.errors import SettingsError

    known = {str(state).split()[0]: str(state) for state in JobState}
    if unknown := sorted(set(words or ()) - set(known)):
        raise SettingsError(f"--state: expected one of {', '.join(known)}, got {', '.join(unknown)}")
    return frozenset(known[word] for word in words or known)


def show(job: JobId, output: Format = Output.TEXT, broker_url: BrokerUrl = None) -> None:
    """Show one job: its state, sites, scores and result."""
    detail = with_client(lambda client: client.job(job), broker_url)
    if output is Output.JSON:
        _print_json(detail)
    else:
        from fedbus.cli.tables import job_tables, print_tables

        print_tables(*job_tables(detail))


def list_sites(output: Format = Output.TEXT, broker_url: BrokerUrl = None) -> None:
    """List the sites: who is where, what they do, since when they are silent."""
    rows = with_client(lambda client: client.sites(), broker_url)
    completion.remember(broker_url, completion.SITES, [(row.site, row.state) for row in rows])
    if output is Output.JSON:
        _print_json(rows)
    else:
        from fedbus.cli.tables import print_tables, sites_table

        print_tables(sites_table(rows))


def watch(job: JobId, output: Format = Output.TEXT, broker_url: BrokerUrl = None) -> None:
    """Show what happens in a job until it ends; exit code 0 when it finished, 1 otherwise."""
    from fedbus.cli.watch import watch_job

    as_json = output is Output.JSON
    raise typer.Exit(with_client(lambda client: watch_job(client, job, as_json=as_json), broker_url))


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

    lines = with_client(lambda client: client.history(job), broker_url)
    match output:
        case HistoryOutput.JSON:
            _print_json(lines)
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
    wanted, progress = version_of(version), progress_of(sys.stderr)
    fetched = with_client(lambda client: client.get(job, wanted, to, progress=progress), broker_url)
    typer.echo(f"version {fetched.version} of {printable(job)}: {fetched.size_bytes} bytes in {printable(str(to))}")


def version_of(text: str) -> str | int:
    """What `--version` says: best, last or a number."""
    from fedbus.errors import SettingsError

    if text not in ("best", "last") and not text.isdecimal():
        raise SettingsError(f"--version: expected best, last or the number of a version, got {printable(text)}")
    return int(text) if text.isdecimal() else text


def progress_of(stream: TextIO) -> Progress:
    """Bytes as they come, where somebody looks on."""
    return _show_progress if stream.isatty() else _no_progress


def _show_progress(have_bytes: int, size_bytes: int) -> None:
    end = "\n" if have_bytes == size_bytes else ""
    typer.echo(f"\r{have_bytes / 2**20:.1f} of {size_bytes / 2**20:.1f} MiB{end}", nl=False, err=True)


def _no_progress(have_bytes: int, size_bytes: int) -> None:
    pass


def abort(
    job: Annotated[
        str | None,
        typer.Argument(help="Id of the job, as `fedbus jobs` shows it.", autocompletion=completion.jobs_that_go_on),
    ] = None,
    all_waiting: Annotated[bool, typer.Option("--all-waiting", help="Every job that has not begun.")] = False,
    reason: Annotated[str | None, typer.Option(help="Kept with the job and told to the sites.")] = None,
    broker_url: BrokerUrl = None,
) -> None:
    """End a job that runs or waits; what it has learnt is exported."""
    from fedbus.errors import SettingsError

    if (job is None) is not all_waiting:
        raise SettingsError("give the id of a job, or --all-waiting")

    async def run(client: Client) -> list[str]:
        waiting = [] if job else [row.job for row in await client.jobs() if row.state in _states(WAITING)]
        jobs = waiting if job is None else [job]
        for one in jobs:
            await client.abort(one, reason)
        return jobs

    aborted = with_client(run, broker_url)
    for one in aborted:
        typer.echo(f"{printable(one)} is being aborted")
    if not aborted:
        typer.echo("no job waits")


def with_client(work: Callable[[Client], Awaitable[R]], broker_url: str | None) -> R:
    """Connect as submitter, ask what `work` asks, and return what it returns."""
    from fedbus.console.client import Client
    from fedbus.console.settings import SubmitterSettings
    from fedbus.runtime.logging import configure_logging
    from fedbus.runtime.process import run_async

    settings = SubmitterSettings.load(broker_url=broker_url)
    configure_logging("error", settings.log_format)

    async def run() -> R:
        async with Client(settings) as client:
            return await work(client)

    return run_async(run())


def _print_json(answer: object) -> None:
    """Print what the aggregator answered, its keys in the order of the wire."""
    from fedbus.core.protocol.answers import as_json

    typer.echo(json.dumps(as_json(answer), indent=1, sort_keys=True))
