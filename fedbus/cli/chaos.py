"""`fedbus chaos`: kill, freeze and cut everything on a seeded schedule, and check that nothing was lost."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli.bench import Format, print_rows
from fedbus.cli.broker import Output

if TYPE_CHECKING:
    from fedbus.bench.chaos.run import Tell

SEEDS = re.compile(r"(\d+)(?:\.\.(\d+))?")


def seeds_of(text: str) -> range:
    """Read `7` or `1..20`."""
    match = SEEDS.fullmatch(text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise typer.BadParameter(f"expected a number such as 7, or a range such as 1..20; got {text!r}")
    return range(int(match[1]), int(match[2] or match[1]) + 1)


def chaos(
    seed: Annotated[str, typer.Option(metavar="N|N..M", help="What is done follows from this number.")] = "1",
    minutes: Annotated[float, typer.Option(min=0.1, help="How long things are done to the federation.")] = 2.0,
    kill_points: Annotated[bool, typer.Option("--kill-points", help="Hit every kill point once instead.")] = False,
    kits: Annotated[bool, typer.Option("--kits", help="In a provisioned federation: TLS, signed, sealed.")] = False,
    nodes: Annotated[int, typer.Option(help="1, or 3: the broker is a cluster whose nodes are done to as well.")] = 1,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep logs and state in this folder.")] = None,
    output: Format = Output.TEXT,
) -> None:
    """Kill, freeze and cut everything of a real federation, and check that nothing was lost or counted twice.

    Exit code 1 when a promise is broken; logs and state are then kept.
    """
    from fedbus.local.interrupts import Interrupted
    from fedbus.runtime.logging import configure_logging

    if nodes not in (1, 3) or (nodes == 3 and kill_points):
        raise typer.BadParameter("expected 1 or 3, and 1 with --kill-points", param_hint="--nodes")
    configure_logging("error")
    tell = partial(typer.echo, err=output is Output.JSON)
    try:
        kept = (
            _kill_points(keep, output, tell, kits)
            if kill_points
            else _seeds(seeds_of(seed), minutes, keep, output, tell, kits, cluster=nodes == 3)
        )
    except Interrupted as exc:
        print(f"fedbus chaos: stopped by {exc.signal.name}; all its processes have ended", file=sys.stderr)
        raise typer.Exit(exc.exit_code) from None
    raise typer.Exit(0 if kept else 1)


def _seeds(
    seeds: range, minutes: float, keep: Path | None, output: Output, tell: Tell, kits: bool, *, cluster: bool
) -> bool:
    from fedbus.bench.chaos.run import run_seed

    outcomes = []
    for seed in seeds:
        outcomes.append(run_seed(seed, within_s=60 * minutes, keep=keep, tell=tell, kits=kits, cluster=cluster))
        tell("\n".join([outcomes[-1].sentence(), *outcomes[-1].found.sentences]))
    if output is Output.JSON:
        typer.echo(json.dumps([outcome.as_json() for outcome in outcomes], indent=1))
    else:
        print_rows([row for outcome in outcomes for row in outcome.rows()], output)
    return all(outcome.found.ok for outcome in outcomes)


def _kill_points(keep: Path | None, output: Output, tell: Tell, kits: bool) -> bool:
    from fedbus.bench.chaos.kill_points import run_kill_points

    table = run_kill_points(keep=keep, tell=tell, kits=kits)
    for sentence in table.failures:
        tell(sentence)
    print_rows(table.rows(), output)
    return not table.failures
