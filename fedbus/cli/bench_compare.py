"""`fedbus bench time-to-target` and its smaller sisters: aggregation rules side by side in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbus.cli.bench import Format, bench_app, print_rows
from fedbus.cli.broker import Output

if TYPE_CHECKING:
    from fedbus.bench.time_to_target.plan import Plan, Setting
    from fedbus.bench.time_to_target.pool import Pool

Scenarios = Annotated[
    list[str] | None, typer.Option("--scenario", help="Once per scenario: digits-a, digits-b, fashion-a, ...")
]
Seeds = Annotated[int, typer.Option(min=1, help="Runs of each row, each with its own split of the data.")]
Etas = Annotated[
    list[float] | None, typer.Option("--eta", help="Once per step length, instead of every rule's own grid.")
]
Factors = Annotated[list[float] | None, typer.Option("--local-lr-factor", help="Times the task's local learning rate.")]
Ratios = Annotated[list[float] | None, typer.Option("--ratio", help="Period of the slowest site over the fastest.")]
Until = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Virtual time of a run.", show_default="the scenario's")
]
Workers = Annotated[int, typer.Option(min=1, help="Processes, each with one torch thread.")]
ResultsFile = Annotated[
    Path | None, typer.Option("--results", metavar="FILE", help="Keep outcomes there; what it has is not run again.")
]

DIGITS = ("digits-a", "digits-b")
WIDE = ("wide-a", "wide-b")
FASHION = ("fashion-a", "fashion-b")
ALL = (*DIGITS, *FASHION, "heart")


@bench_app.command()
def time_to_target(
    scenario: Scenarios = None,
    rule: Annotated[list[str] | None, typer.Option("--rule", help="Once per rule.", show_default="all")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="APPFL and FLGo too; needs deploy/bench-peers.")] = False,
    seeds: Seeds = 5,
    tune_seeds: Annotated[int, typer.Option(min=1, help="Seeds that choose a rule's step length.")] = 2,
    eta: Etas = None,
    local_lr_factor: Factors = None,
    ratio: Ratios = None,
    until: Until = None,
    to_end: Annotated[bool, typer.Option("--to-end", help="Go on after the target, for final accuracies.")] = False,
    workers: Workers = 2,
    results: ResultsFile = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of the figures page.")] = False,
    output: Format = Output.TEXT,
) -> None:
    """Virtual seconds, updates and bytes until a target is held, each rule at its own best step length."""
    from fedbus.bench.time_to_target import table
    from fedbus.bench.time_to_target.goals import goal_rows
    from fedbus.bench.time_to_target.peers import check_installed
    from fedbus.bench.time_to_target.plan import summaries
    from fedbus.bench.time_to_target.rules import default_rules

    if peers:
        check_installed()
    elif rule is None:
        typer.echo("without peers; with them: deploy/bench-peers, .venv-peers/bin/fedbus bench ... --peers", err=True)
    plan = _plan(
        _settings(scenario or ALL, local_lr_factor, ratio),
        rules=rule or default_rules(with_peers=peers),
        seeds=seeds,
        tune_seeds=tune_seeds,
        etas=eta,
        until_s=until,
        to_end=to_end,
    )
    with _pool(results, workers) as pool:
        rows = summaries(plan, pool)
    goals = goal_rows(rows)
    if output is Output.JSON:
        _print_json({"rows": table.as_data(rows), "goals": goals})
    elif markdown:
        typer.echo(table.markdown(rows))
    else:
        table.print_table(rows)
        print_rows(goals, output)


@bench_app.command()
def no_knob(
    scenario: Scenarios = None,
    seeds: Seeds = 3,
    eta: Etas = None,
    local_lr_factor: Factors = None,
    ratio: Ratios = None,
    until: Until = None,
    workers: Workers = 2,
    results: ResultsFile = None,
    output: Format = Output.TEXT,
) -> None:
    """Strategy auto against every step length, for each local learning rate and ratio (.3, 1, 3; 1, 3, 10, 30)."""
    from fedbus.bench.time_to_target.experiments import no_knob as run

    settings = _settings(scenario or ALL, local_lr_factor or (0.3, 1.0, 3.0), ratio or (1.0, 3.0, 10.0, 30.0))
    _run(run, _plan(settings, seeds=seeds, etas=eta, until_s=until), results, workers, output)


def _add_comparison(name: str, help_text: str, scenarios: Sequence[str]) -> None:
    """Add a command that runs the comparison of this name in `experiments`; they differ in nothing else."""

    def command(
        scenario: Scenarios = None,
        seeds: Seeds = 5,
        until: Until = None,
        workers: Workers = 2,
        results: ResultsFile = None,
        output: Format = Output.TEXT,
    ) -> None:
        from fedbus.bench.time_to_target import experiments

        settings = _settings(scenario or scenarios)
        _run(getattr(experiments, name), _plan(settings, seeds=seeds, until_s=until), results, workers, output)

    bench_app.command(name, help=help_text)(command)


_add_comparison("attack", "Two of twelve sites send -3 delta: final accuracy by defence; what the clip costs.", DIGITS)
_add_comparison("churn", "Every site is away a quarter of the time: final accuracy against none of that.", DIGITS)
_add_comparison(
    "compression", "Bytes and updates to target by code, against fp32 and fp32 sync.", (*DIGITS, *WIDE, *FASHION)
)


@bench_app.command()
def late_join(
    scenario: Scenarios = None,
    rule: Annotated[list[str] | None, typer.Option("--rule", help="Once per rule; a step of 1 but for auto.")] = None,
    seeds: Seeds = 5,
    until: Until = None,
    workers: Workers = 2,
    results: ResultsFile = None,
    output: Format = Output.TEXT,
) -> None:
    """The three sites with the rare classes join after 100 s: how long until the target."""
    from fedbus.bench.time_to_target.experiments import late_join as run

    settings, rules = _settings(scenario or ("digits-b",)), rule or ("auto", "fedbuff")
    _run(run, _plan(settings, rules=rules, seeds=seeds, until_s=until), results, workers, output)


@bench_app.command()
def scale(
    sites: Annotated[list[int] | None, typer.Option("--sites", help="Once.", show_default="10, 50, 200, 1000")] = None,
    core_sites: Annotated[
        list[int] | None,
        typer.Option("--core-sites", help="Of the core alone; once.", show_default="1000, 4000, 10000"),
    ] = None,
    strategy: Annotated[list[str] | None, typer.Option("--strategy", help="Once per strategy.")] = None,
    mib: Annotated[float, typer.Option("--mib", help="Model size in MiB.")] = 1.0,
    updates: Annotated[int, typer.Option(min=1, help="Updates measured per row.")] = 500,
    output: Format = Output.TEXT,
) -> None:
    """Sites against updates per second of one aggregator without broker and disk, and ms per update in its core."""
    from fedbus.bench.scale import core_rows, rows

    strategies = strategy or ["auto", "calibrated", "buffered", "sync"]
    whole = rows(sites=sites or [10, 50, 200, 1000], strategies=strategies, mib=mib, updates=updates)
    print_rows([*whole, *core_rows(sites=core_sites or [1000, 4000, 10_000], strategies=strategies)], output)


# ------------------------------------------------------------------ what the commands share


def _settings(
    scenarios: Sequence[str], factors: Sequence[float] | None = None, ratios: Sequence[float] | None = None
) -> list[Setting]:
    from fedbus.bench.time_to_target.plan import Setting
    from fedbus.bench.time_to_target.scenarios import scenario_of

    return [
        Setting(scenario=scenario_of(name).name, lr_factor=factor, ratio=ratio)
        for name in scenarios
        for factor in factors or (1.0,)
        for ratio in ratios or (10.0,)
    ]


def _plan(settings: Sequence[Setting], *, rules: Sequence[str] = (), **more: Any) -> Plan:
    from fedbus.bench.time_to_target.plan import Plan
    from fedbus.bench.time_to_target.rules import rule_of

    return Plan(settings=settings, rules=[rule_of(name).name for name in rules], **more)


def _run(
    run: Callable[[Plan, Pool], list[dict[str, Any]]], plan: Plan, results: Path | None, workers: int, output: Output
) -> None:
    with _pool(results, workers) as pool:
        rows = run(plan, pool)
    if output is Output.JSON:
        _print_json(rows)
    else:
        print_rows(rows, output)


@contextmanager
def _pool(results: Path | None, workers: int) -> Iterator[Pool]:
    """A pool that tells of every outcome on standard error."""
    from fedbus.bench.time_to_target.pool import Pool, Results

    pool = Pool(Results(results), workers=workers, say=lambda line: typer.echo(line, err=True))
    try:
        yield pool
    finally:
        pool.close()


def _print_json(data: Any) -> None:
    """Print JSON in which what never came is null: JSON has no infinity."""
    import json
    import math

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(found) for key, found in value.items()}
        if isinstance(value, list):
            return [finite(found) for found in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    typer.echo(json.dumps(finite(data), indent=1))
