"""`fedbus backup` and `fedbus restore`: an aggregator's state as one file, and made again from it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fedbus.core.words import counted
from fedbus.runtime.printable import printable


def backup(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where to; what is there is replaced.")],
    state_dir: Annotated[
        Path | None, typer.Option(help="The aggregator's state folder.", show_default="$FEDBUS_HOME/aggregator")
    ] = None,
) -> None:
    """Write all that the aggregator keeps into one file, while it works or not.

    Keys are in it, as in the folder: whoever has the file can read what sites have sent. The kit and the folder of
    `fedbus provision`, with the CA, are not.
    """
    from fedbus import __version__
    from fedbus.cli.forget import size_of
    from fedbus.store.backup import back_up

    begun = time.monotonic()
    head = back_up(_folder(state_dir), to, release=__version__, at=time.time())
    size, spent_s = size_of(to.stat().st_size), time.monotonic() - begun
    typer.echo(f"{printable(str(to))}: {counted(len(head.jobs), 'job')}, {size}, in {spent_s:.1f} s")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `fedbus backup` has written.")],
    state_dir: Annotated[
        Path | None, typer.Option(help="A new folder.", show_default="$FEDBUS_HOME/aggregator")
    ] = None,
) -> None:
    """Make an aggregator's state folder of a backup, on this machine or on another one.

    The aggregator that the backup is of must never run again. Jobs that had not ended go on from the version that the
    backup has; what was folded after it is lost, and sites train it anew.
    """
    from fedbus.bus.topology import another_models_stream
    from fedbus.store.restore import restore

    folder = _folder(state_dir)
    made = restore(file, folder, renamed=another_models_stream, at=time.time())
    head, when = made.head, time.strftime("%F %T %z", time.localtime(made.head.at))
    typer.echo(
        f"{printable(str(folder))}: {counted(len(head.jobs), 'job')} as of {when}, by fedbus {printable(head.fedbus)}"
    )
    versions = {each.job: each.version for each in head.jobs}
    for job in made.going_on:
        typer.echo(f"goes on          {printable(job)} at version {versions.get(job, 0)}")
    for log in made.old_logs:
        typer.echo(f"at the broker    rabbitmqctl delete_queue -p fedbus {printable(log)}  (nobody needs it any more)")
    typer.echo(f"next             fedbus aggregator --state-dir {printable(str(folder))}  (with its kit)")


def _folder(given: Path | None) -> Path:
    if given is not None:
        return given
    from fedbus.runtime.settings import default_home

    return default_home() / "aggregator"
