"""Commands that delete what is over: rm and prune."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli import completion
from fedbus.cli.jobs import BrokerUrl, with_client
from fedbus.errors import SettingsError
from fedbus.runtime.printable import printable

if TYPE_CHECKING:
    from fedbus.console.client import Client
    from fedbus.core.protocol.answers import EndedJob

EndedJobId = Annotated[
    str, typer.Argument(help="Id of the job, as `fedbus jobs` shows it.", autocompletion=completion.jobs_that_ended)
]
UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
STATES = ("finished", "failed", "aborted")


def rm(job: EndedJobId, broker_url: BrokerUrl = None) -> None:
    """Delete a job that has ended: its model, scores, history and what the aggregator keeps of it.

    Sites that took part drop what they kept for it. There is no way back; `fedbus get` fetches the model before.
    """
    gone = with_client(lambda client: client.forget(job), broker_url)
    typer.echo(f"{printable(job)} is forgotten: {size_of(gone)} deleted")


def prune(
    older_than: Annotated[str, typer.Option(help="Age since the end of a job: 12h, 30d, 4w.")],
    state: Annotated[
        str | None, typer.Option(help=f"Only jobs that ended so: {', '.join(STATES)}.", show_default="all")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; without it they are only listed.")] = False,
    broker_url: BrokerUrl = None,
) -> None:
    """Delete all jobs that ended long ago. Says first what that would be."""
    if state is not None and state not in STATES:
        raise SettingsError(f"--state: expected one of {', '.join(STATES)}, got {state!r}")
    before = time.time() - seconds_of(older_than)

    async def run(client: Client) -> tuple[list[EndedJob], int]:
        ended = [one for one in await client.ended() if one.ended_at <= before and state in (None, one.state)]
        return ended, sum([await client.forget(one.job) for one in ended]) if yes else 0

    ended, gone = with_client(run, broker_url)
    for one in ended:
        at = time.strftime("%F %T %z", time.localtime(one.ended_at))
        typer.echo(f"{printable(one.job):<40}  {one.state:<8}  {at}  {size_of(one.disk_bytes)}")
    typer.echo(_said(ended, gone if yes else None))


def _said(ended: Sequence[EndedJob], gone: int | None) -> str:
    if not ended:
        return "no job ended so long ago"
    jobs = f"{len(ended)} job{'s' * (len(ended) > 1)}"
    if gone is not None:
        return f"{jobs} forgotten: {size_of(gone)} deleted"
    return f"{jobs}, {size_of(sum(one.disk_bytes for one in ended))}: nothing was deleted; add --yes to do it"


def seconds_of(text: str) -> float:
    """Seconds of an age such as 30d. Raises SettingsError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if found is None:
        raise SettingsError(f"--older-than: expected a number with m, h, d or w such as 30d, got {text!r}")
    return float(found[1]) * UNITS[found[2]]


def size_of(size_bytes: int) -> str:
    """Bytes in the unit that fits."""
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
