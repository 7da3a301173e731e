"""`fedbus check`: what is wrong with a job spec, what the job will be, and who could take it; nothing is submitted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli.jobs import BrokerUrl, with_client
from fedbus.cli.spec_file import read_spec_text
from fedbus.runtime.printable import printable

if TYPE_CHECKING:
    from fedbus.core.job.spec_sites import Prospect
    from fedbus.core.spec.head import JobSpec


def show_reference(wanted: bool) -> None:
    """Print every key of a job spec and leave."""
    if wanted:
        from fedbus.core.spec.reference import as_text

        typer.echo(as_text())
        raise typer.Exit


def check(
    spec: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="Job spec; - reads standard input.")],
    sites: Annotated[bool, typer.Option("--sites", help="Ask the aggregator which sites could take the job.")] = False,
    reference: Annotated[
        bool,
        typer.Option("--reference", callback=show_reference, is_eager=True, help="Print every key of a job spec."),
    ] = False,
    broker_url: BrokerUrl = None,
) -> None:
    """Check a job spec without submitting it, and say what the job will be.

    Needs no broker, unless --sites asks who could take the job. Exit code 1 when the spec has errors, or when the job
    could not start now.
    """
    from fedbus.core.spec import kinds
    from fedbus.core.spec.outline import outline

    parsed = kinds.parse_yaml(read_spec_text(spec))
    _print(outline(parsed))
    if not sites:
        return
    found = _ask(parsed, broker_url)
    typer.echo()
    _print([*((site, "could take part") for site in found.could), *found.cannot.items()])
    typer.echo(printable(found.says))
    if found.could:
        typer.echo("A site may still decline, by the min_batch_size and min_contributors of its own settings.")
    raise typer.Exit(0 if found.could_start else 1)


def _ask(spec: JobSpec, broker_url: str | None) -> Prospect:
    from fedbus.core.job.spec_sites import KnownSite, prospect

    rows = with_client(lambda client: client.sites(), broker_url)
    return prospect(spec, [KnownSite(name=r.site, state=r.state, tasks=r.tasks) for r in rows])


def _print(lines: Iterable[tuple[str, str]]) -> None:
    lines = [(printable(word), printable(text)) for word, text in lines]
    width = max((len(word) for word, _ in lines), default=0)
    for word, text in lines:
        typer.echo(f"{word:<{width}}  {text}")
