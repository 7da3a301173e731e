"""`fedbus chaos`: kill, freeze and cut everything on a seeded schedule, and check that nothing was lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from fedbus.cli.bench import Format, print_rows
from fedbus.cli.broker import Output

SEEDS = re.compile(r"(\d+)(?:\.\.(\d+))?")


def seeds_of(text: str) -> list[int]:
    """Read `7` or `1..20`."""
    match = SEEDS.fullmatch(text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise typer.BadParameter(f"expected a number such as 7, or a range such as 1..20; got {text!r}")
    return list(range(int(match[1]), int(match[2] or match[1]) + 1))


def chaos(
    seed: Annotated[str, typer.Option(metavar="N|N..M", help="What is done follows from this number.")] = "1",
    minutes: Annotated[float, typer.Option(min=0.2, help="How long things are done to the federation.")] = 2.0,
    kill_points: Annotated[bool, typer.Option("--kill-points", help="Hit every kill point once instead.")] = False,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep logs and state in this folder.")] = None,
    output: Format = Output.TEXT,
) -> None:
    """Kill, freeze and cut everything of a real federation, and check that nothing was lost or counted twice."""
    from fedbus.bench.chaos.run import run_seed
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    if kill_points:
        raise typer.Exit(_kill_points(keep, output))
    seeds, outcomes = seeds_of(seed), []
    tell = (lambda _: None) if output is Output.JSON or len(seeds) > 1 else typer.echo
    for number in seeds:
        outcome = run_seed(number, within_s=60 * minutes, keep=keep, tell=tell)
        outcomes.append(outcome)
        if output is Output.TEXT:
            typer.echo("\n".join([outcome.sentence(), *outcome.found.sentences]))
    if output is Output.JSON:
        typer.echo(json.dumps([outcome.as_json() for outcome in outcomes], indent=1))
    else:
        print_rows([row for outcome in outcomes for row in outcome.rows()], output)
    raise typer.Exit(0 if all(outcome.found.ok for outcome in outcomes) else 1)


def _kill_points(keep: Path | None, output: Output) -> int:
    from fedbus.bench.chaos.kill_points import run_kill_points

    table = run_kill_points(keep=keep, tell=(lambda _: None) if output is Output.JSON else typer.echo)
    print_rows(table.rows(), output)
    for sentence in table.failures:
        typer.echo(sentence, err=True)
    return 1 if table.failures else 0
