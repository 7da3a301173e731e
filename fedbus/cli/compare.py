"""`fedbus compare`: is one model better than another, by how much, and how sure is that?"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli import completion
from fedbus.cli.broker import Output
from fedbus.cli.jobs import BrokerUrl, Format, JobId, with_client
from fedbus.cli.report import Force
from fedbus.runtime.printable import printable

if TYPE_CHECKING:
    from fedbus.console.client import Client
    from fedbus.core.protocol.answers import JobDetail
    from fedbus.core.spec.evaluate import EvaluateSpec


def compare(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="JOB_A [JOB_B]",
            help="Two trainings; or one, and two versions of it.",
            show_default=False,
            autocompletion=completion.jobs,
        ),
    ] = None,
    versions: Annotated[
        list[str] | None,
        typer.Option(
            "--version", metavar="best|last|N", help="Which version of A, then of B.", show_default="the best of each"
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="The metric that is the question.", show_default="by A's stop rule, or dice, auc"),
    ] = None,
    asked: Annotated[
        str | None,
        typer.Option(
            "--job",
            metavar="JOB",
            help="Show a comparison that was made, by its job.",
            autocompletion=completion.jobs,
        ),
    ] = None,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page, .html or .json, as well.")] = None,
    force: Force = False,
    output: Format = Output.TEXT,
    broker_url: BrokerUrl = None,
) -> None:
    """Let every site measure two models on the same test cases, and say how they differ and how sure that is.

    It submits a job that only scores, waits for its end and prints what it has come to; `fedbus compare --job JOB` and
    `fedbus report JOB` show it again. The models are A and B; a difference is B less A.
    """
    from fedbus.console.compare import comparisons_of
    from fedbus.errors import FedbusError
    from fedbus.report.files import check_free

    if to is not None:
        check_free(to, force=force)
    _check_usage(jobs or [], versions or [], asked)
    detail = with_client(lambda client: _compared(client, jobs or [], versions or [], metric, asked), broker_url)
    if metric is not None:
        detail = replace(detail, spec={**detail.spec, "metric": metric})
    found = comparisons_of(detail)
    if not found:
        raise FedbusError(f"job {detail.job} compares nothing: {detail.says or (detail.result or {}).get('reason')}")
    if metric is not None and not any(one.question for comparison in found for one in comparison.differences):
        names = sorted({one.metric for comparison in found for one in comparison.differences})
        raise FedbusError(f"--metric: no site says how {metric} differs; there is {', '.join(names) or 'none'}")
    _print(detail, output)
    _write_page(detail, to, force=force)


def _check_usage(jobs: list[str], versions: list[str], asked: str | None) -> None:
    from fedbus.errors import SettingsError

    if asked is not None and not jobs and not versions:
        return
    if asked is not None or not 1 <= len(jobs) <= 2:
        raise SettingsError("give two trainings, one and two --version, or --job and a comparison that was made")
    if wrong := [word for word in versions if word not in ("best", "last") and not word.isdecimal()]:
        raise SettingsError(f"--version: expected best, last or the number of a version, got {printable(wrong[0])}")
    if len(versions) > 2 or (len(jobs) == 1 and len(versions) != 2):
        raise SettingsError("--version: give it twice, for A and for B; with two jobs once stands for both")


async def _compared(
    client: Client, jobs: list[str], versions: list[str], metric: str | None, asked: str | None
) -> JobDetail:
    """The job that has compared, when it has ended."""
    from fedbus.console.comparing import comparing_spec
    from fedbus.console.outcome import when_ended

    if asked is not None:
        return await when_ended(client, asked)
    return await _evaluated(client, *await comparing_spec(client, jobs, versions, metric))


async def _evaluated(client: Client, spec: EvaluateSpec, notes: list[str]) -> JobDetail:
    """Submit a job that scores, and wait for its end."""
    from fedbus.console.outcome import when_ended

    for note in notes:
        typer.echo(f"note: {printable(note)}", err=True)
    job = await client.submit(spec, note=lambda text: typer.echo(f"note: {printable(text)}", err=True))
    typer.echo(f"scoring in job {printable(job)}", err=True)
    return await when_ended(client, job)


def cross_site(
    job: JobId,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page, .html or .json, as well.")] = None,
    force: Force = False,
    output: Format = Output.TEXT,
    broker_url: BrokerUrl = None,
) -> None:
    """Let every site score the best and the last version of a training, and the local models that sites have left.

    Local models are there when the training says `evaluate_local` and a site's setting `share_local_model` allows it.
    Such a training was followed by the job that scores them: it is shown, and another one made where it has failed.
    """
    from fedbus.cli.tables import job_tables, print_tables
    from fedbus.console.comparing import follow_up_of, scored_across
    from fedbus.console.outcome import when_ended
    from fedbus.core.protocol.answers import as_json
    from fedbus.core.protocol.messages import JobState
    from fedbus.report.files import check_free

    if to is not None:
        check_free(to, force=force)

    async def run(client: Client) -> JobDetail:
        made = await follow_up_of(client, await client.job(job))
        if made is None or made.state in (JobState.FAILED, JobState.ABORTED):
            return await _evaluated(client, *await scored_across(client, job))
        typer.echo(f"scored in job {printable(made.job)}, which followed by itself", err=True)
        return await when_ended(client, made.job)

    detail = with_client(run, broker_url)
    if output is Output.JSON:
        typer.echo(json.dumps(as_json(detail), indent=1, sort_keys=True))
    else:
        print_tables(*job_tables(detail))
    _write_page(detail, to, force=force)


def _write_page(detail: JobDetail, to: Path | None, *, force: bool) -> None:
    if to is None:
        return
    from fedbus.console.report.job import job_page
    from fedbus.report.files import write_report

    write_report(job_page(detail, (), now=time.time()), to, force=force)
    typer.echo(f"report: {printable(str(to))}", err=True)


def _print(detail: JobDetail, output: Output) -> None:
    from fedbus.console.compare import as_data, comparisons_of

    found = comparisons_of(detail)
    if output is Output.JSON:
        typer.echo(json.dumps({"job": detail.job, "comparisons": [as_data(one) for one in found]}, indent=1))
        return
    from fedbus.cli.score_tables import comparison_tables
    from fedbus.cli.tables import print_tables

    print_tables(*(table for one in found for table in comparison_tables(one)))
