"""`fedbus contribution`: the model without each site, scored by all sites."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbus.cli import completion
from fedbus.cli.broker import Output
from fedbus.cli.jobs import BrokerUrl, JobId, with_client
from fedbus.cli.replay import counted_on_the_terminal
from fedbus.runtime.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fedbus.console.client import Client
    from fedbus.console.contribution import Contribution
    from fedbus.core.protocol.answers import JobDetail, ScoredModel
    from fedbus.replay.without_each import Without


def contribution(
    state_dir: Annotated[
        Path, typer.Argument(metavar="STATE_DIR", help="State folder of the aggregator, on this machine.")
    ],
    job: JobId,
    sites: Annotated[
        list[str] | None,
        typer.Option(
            "--site",
            metavar="SITE",
            help="Only without this one; once per site.",
            autocompletion=completion.sites,
        ),
    ] = None,
    params_dir: Annotated[
        Path | None, typer.Option(help="The aggregator's params folder.", show_default="STATE_DIR/params")
    ] = None,
    broker_url: BrokerUrl = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
) -> None:
    """Measure what each site has added to a job's model: all sites score it, and the model without each.

    Runs where the aggregator's state folder is. The models without a site
    are replayed from the ledger: an answer of first order, see `replay`. From
    version 0 on that needs `fedbus aggregator --keep-updates`.
    """
    from fedbus.console.contribution import contributions, scored, spec_of

    params = params_dir or state_dir / "params"
    detail = with_client(lambda client: client.job(job), broker_url)
    made = _replayed(state_dir, job, sites or (), params)
    try:
        spec = spec_of(detail, [one.path.name for one in made])

        async def ask(client: Client) -> tuple[str, tuple[ScoredModel, ...]]:
            return await scored(client, spec)

        scoring_job, models = with_client(ask, broker_url)
    finally:
        for one in made:
            one.path.unlink(missing_ok=True)
    found = contributions([one.site for one in made], models)
    _print(detail, scoring_job, models[0], made, found, output)


def _replayed(state_dir: Path, job: str, sites: Sequence[str], params: Path) -> list[Without]:
    import torch

    from fedbus.console.contribution import MOST_SITES
    from fedbus.errors import SettingsError
    from fedbus.replay.replay import record
    from fedbus.replay.without_each import sites_of, without_each
    from fedbus.store.state_reader import StateReader

    torch.set_num_threads(1)  # the aggregator works beside
    if not params.is_dir():
        raise SettingsError(f"no folder {params}: name the aggregator's params folder with --params-dir")
    with StateReader(state_dir) as state, counted_on_the_terminal(job) as told:
        recording = record(state, job)
        chosen = sites_of(recording, sites)
        if len(chosen) > MOST_SITES:
            raise SettingsError(f"at most {MOST_SITES} sites are left out in one job: choose some with --site")
        return list(without_each(state, recording, chosen, params, told=told))


def _print(
    detail: JobDetail,
    scoring_job: str,
    whole: ScoredModel,
    made: Sequence[Without],
    found: Sequence[Contribution],
    output: Output,
) -> None:
    from fedbus.cli.tables import print_tables

    if output is Output.JSON:
        rows = [
            dataclasses.asdict(one) | {"updates": left.updates, "from_version": left.from_version}
            for one, left in zip(found, made, strict=True)
        ]
        known: dict[str, Any] = {"job": detail.job, "scored_by": scoring_job, "version": detail.version}
        typer.echo(json.dumps(known | {"means": dict(whole.means), "without": rows}, indent=1))
        return
    print_tables(*_tables(detail, whole, made, found))
    first = max(left.from_version for left in made)
    since = f"; what came before version {first} is in all of them" if first else ""
    typer.echo(f"scored by {printable(scoring_job)}{since}")


def _tables(
    detail: JobDetail, whole: ScoredModel, made: Sequence[Without], found: Sequence[Contribution]
) -> list[RenderableType]:
    """One table a metric: the mean without each site, and what the site has added to it, in all and at each site."""
    from rich.table import Table

    from fedbus.runtime.terminal import said

    tables: list[RenderableType] = []
    for metric, value in sorted(whole.means.items()):
        places = sorted({at for one in found for at, change in one.at_sites.items() if metric in change})
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in (metric, "updates", "mean", "added by it", *(f"at {place}" for place in places)):
            table.add_column(said(name), overflow="fold")
        table.add_row(said(f"version {detail.version}, all sites"), said(""), said(f"{value:.3f}"))
        for one, left in zip(found, made, strict=True):
            changes = (one.at_sites.get(place, {}).get(metric) for place in places)
            cells = [f"without {one.site}", left.updates, _number(one.means.get(metric)), _sign(one.change.get(metric))]
            table.add_row(*map(said, [*cells, *map(_sign, changes)]))
        tables.append(table)
    return tables


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _sign(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"
