"""`fedbus simulate`: a job in virtual time, without a broker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbus.cli.broker import Output
from fedbus.cli.spec_file import read_spec_text

if TYPE_CHECKING:
    from fedbus.core.spec.training import TrainingSpec
    from fedbus.simulation import Point, Presence, Result

SHOWN_METRICS = 4


def simulate(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A job spec, as for `fedbus submit`.")],
    sites: Annotated[
        int | None, typer.Option(min=1, help="How many sites.", show_default="as many as the data have")
    ] = None,
    speeds: Annotated[
        str,
        typer.Option(
            help="How long a training takes: equal, geometric:RATIO, half-normal[:SIGMA], classes[:large], pareto or"
            " exponential[:SIGMA]."
        ),
    ] = "geometric:10",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Stands for the job's seed.", show_default="the job's")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="One folder per site; built-in tasks need none.")
    ] = None,
    until: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Virtual time at the most.", show_default="the job's stop")
    ] = None,
    churn: Annotated[float, typer.Option(min=0.0, help="Share of the time that each site is away, 0.25 say.")] = 0.0,
    join: Annotated[
        list[str] | None, typer.Option(metavar="SITE:SECONDS", help="A site that comes later; once per site.")
    ] = None,
    leave: Annotated[
        list[str] | None, typer.Option(metavar="SITE:SECONDS", help="A site that leaves for good; once per site.")
    ] = None,
    latency: Annotated[float, typer.Option(min=0.0, help="Virtual seconds of the line, one way.")] = 0.0,
    evaluate_every: Annotated[float, typer.Option(min=0.001, help="Virtual seconds between two points.")] = 1.0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write result.json, curve.csv and curves.png there.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
) -> None:
    """Run a job in virtual time: real training and aggregation, no broker.

    The same job, sites, speeds and seed give the same result, byte for byte.
    """
    from time import perf_counter

    import torch

    from fedbus.simulation import Simulation, delays_of, make_sites, site_names
    from fedbus.simulation.curves import write_files
    from fedbus.tasks.scanners import same_tests

    torch.set_num_threads(1)  # as in a trainer; with more, small models are slower
    spec = _read(job)
    seed = spec.seed if seed is None else seed
    names = site_names(spec, sites, data)
    delays = delays_of(speeds, len(names), seed=seed)
    there = _presences(names, delays, churn=churn, joins=join or [], leaves=leave or [])
    simulated = make_sites(spec, delays, names=names, data=data, presence=there)
    began = perf_counter()
    with _progress(spec.name) as told:
        simulation = Simulation(
            spec,
            simulated,
            seed=seed,
            evaluate_every_s=evaluate_every,
            scorers=names[:1] if same_tests(spec.task_config) else None,
            latency_s=latency,
            on_progress=told,
        )
        result = simulation.run(**({} if until is None else {"until_s": until}))
    took_s = perf_counter() - began
    typer.echo(f"{result.updates} updates in {took_s:.1f} s, {60 * result.updates / took_s:,.0f} a minute", err=True)
    asked = {"job": spec.to_dict(), "speeds": speeds, "seed": seed, "churn": churn, "latency": latency}
    facts = asked | result.to_dict()
    missing = write_files(out, facts, result.points, title=f"{spec.name}: {speeds}, seed {seed}") if out else None
    _print(spec, result, facts, output)
    if missing:
        typer.echo(missing, err=True)


def _read(job: Path) -> TrainingSpec:
    from fedbus.core.spec.training import TrainingSpec
    from fedbus.errors import SettingsError

    spec = TrainingSpec.parse_yaml(read_spec_text(job))
    if spec.continues is not None:
        raise SettingsError("continues: a simulation has no other jobs to go on from: leave the key out")
    return spec


def _presences(
    names: Sequence[str], delays: Sequence[Any], *, churn: float, joins: Sequence[str], leaves: Sequence[str]
) -> dict[str, Presence]:
    """When each site is there; churn goes by the period of the slowest site."""
    import math

    from fedbus.simulation import Presence, mean_delay

    period_s = max(map(mean_delay, delays))
    comes, goes = _times("--join", joins, names), _times("--leave", leaves, names)
    return {
        name: Presence(
            joins_at=comes.get(name, 0.0),
            leaves_at=goes.get(name, math.inf),
            away_share=churn,
            period_s=period_s,
        )
        for name in names
    }


def _times(option: str, given: Sequence[str], names: Sequence[str]) -> Mapping[str, float]:
    from fedbus.errors import SettingsError

    found = {}
    for text in given:
        name, _, seconds = text.rpartition(":")
        try:
            found[name] = float(seconds)
        except ValueError as exc:
            raise SettingsError(f"{option} {text}: expected SITE:SECONDS such as {names[-1]}:100") from exc
        if name not in names:
            raise SettingsError(f"{option} {text}: the sites are {', '.join(names)}")
    return found


@contextmanager
def _progress(name: str) -> Iterator[Callable[[Point], None]]:
    """Say on the terminal how far it is; nothing when standard error is no terminal."""
    from fedbus.runtime.terminal import Terminal, said

    with Terminal(stderr=True).status(said(f"{name}: loading data")) as status:

        def told(point: Point) -> None:
            metrics = ", ".join(f"{key} {value:.3f}" for key, value in list(point.metrics.items())[:SHOWN_METRICS])
            text = f"{name}: virtual second {point.t:.0f}, version {point.version}, {point.updates} updates; {metrics}"
            status.update(said(text))

        yield told


def _print(spec: TrainingSpec, result: Result, facts: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(facts, indent=1))
        return
    from fedbus.cli.simulate_tables import tables
    from fedbus.cli.tables import print_tables

    print_tables(*tables(spec, result))
