"""`fedbus replay`: the params of jobs once more, from an aggregator's state folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbus.cli import completion
from fedbus.cli.broker import Output

if TYPE_CHECKING:
    from fedbus.replay.replay import Replay
    from fedbus.store.state_reader import StateReader

Told = Callable[[], None]


def replay(
    state_dir: Annotated[
        Path, typer.Argument(metavar="STATE_DIR", help="State folder of an aggregator, running or stopped.")
    ],
    job: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="One job. Default: all that have params.", autocompletion=completion.jobs),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SITE",
            help="Leave out what this site sent, and compare; once per site.",
            autocompletion=completion.sites,
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Exit code 1 unless the params are bit-identical to a checkpoint.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="Write the params of the last version there.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
) -> None:
    """Compute the params again from the ledger, and compare them with the checkpoints.

    An aggregator may work in STATE_DIR meanwhile; nothing is written there.
    A replay begins at version 0 when that ran with `--keep-updates`, otherwise
    at the older of its two checkpoints.

    With --without the answer is of first order: what the other sites sent
    later began from versions that had this site in them.
    """
    import torch

    from fedbus.errors import SettingsError
    from fedbus.replay.replay import jobs_with_params
    from fedbus.store.state_reader import StateReader

    torch.set_num_threads(1)  # as the aggregator does: it may work beside
    if without and verify:
        raise SettingsError("--verify compares with what was, --without changes it: give one of the two")
    if out is not None and out.absolute().is_relative_to(state_dir.absolute()):
        raise SettingsError(
            f"--out {out} lies in the state folder, where a replay writes nothing: choose another place"
        )
    with StateReader(state_dir) as state:
        jobs = [job] if job is not None else jobs_with_params(state)
        if (without or out) and len(jobs) > 1:
            raise SettingsError(f"--without and --out are for one job: give --job, one of {', '.join(jobs)}")
        if without:
            _leave_out(state, jobs[0], without, out, output)
        else:
            rows = [_verified(state, name, out, alone=job is not None) for name in jobs]
            _print_rows(rows, output, alone=job is not None)
            if any(row["identical"] is False or row["failed"] for row in rows) or (
                verify and not all(row["identical"] for row in rows)
            ):
                raise typer.Exit(1)


def _verified(state: StateReader, job: str, out: Path | None, *, alone: bool) -> dict[str, Any]:
    """What a replay of one job gives; among several jobs, one that cannot be replayed leaves the others alone."""
    import dataclasses

    from fedbus.errors import FedbusError
    from fedbus.replay.verification import verify

    try:
        with counted_on_the_terminal(job) as told:
            verdict, done = verify(state, job, told=told)
        if out is not None:
            _write(done, out, job)
    except FedbusError as exc:
        if alone or out is not None:
            raise
        return {"job": job, "identical": None, "failed": True, "says": str(exc)}
    return {**dataclasses.asdict(verdict), "identical": verdict.identical, "failed": False, "says": verdict.says}


def _print_rows(rows: list[dict[str, Any]], output: Output, *, alone: bool) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(rows[0] if alone else rows, indent=1))
        return
    from fedbus.cli.replay_tables import verdict_table, verdicts_table
    from fedbus.cli.tables import print_tables

    print_tables(verdict_table(rows[0]) if alone else verdicts_table(rows))


def _leave_out(state: StateReader, job: str, without: list[str], out: Path | None, output: Output) -> None:
    import dataclasses

    from fedbus.replay.leave_out import leave_out
    from fedbus.replay.replay import with_recording

    with counted_on_the_terminal(job) as told:
        result, done = with_recording(state, job, lambda recording: leave_out(state, recording, without, told=told))
    if out is not None:
        _write(done, out, job, without=",".join(result.without))
    row = {**dataclasses.asdict(result), "says": result.says}
    if output is Output.JSON:
        typer.echo(json.dumps(row, indent=1))
        return
    from fedbus.cli.replay_tables import left_out_tables
    from fedbus.cli.tables import print_tables

    print_tables(*left_out_tables(row))


def _write(done: Replay, out: Path, job: str, **metadata: str) -> None:
    from fedbus.export.params_file import write_params

    model = done.model
    known = {"job": job, "version": str(done.version), "digest": model.digest}
    write_params(out, model.hidden, model.layout, known | metadata)


@contextmanager
def counted_on_the_terminal(job: str) -> Iterator[Told]:
    """Count on the terminal what was read so far; nothing when standard error is no terminal."""
    from fedbus.runtime.terminal import Terminal, said

    count = 0
    with Terminal(stderr=True).status(said(f"{job}: reading the ledger")) as status:

        def told() -> None:
            nonlocal count
            count += 1
            status.update(said(f"{job}: {count} bodies read"))

        yield told
