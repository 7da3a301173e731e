"""`fedbus track`: curves of jobs where people already look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli.jobs import BrokerUrl, with_client
from fedbus.runtime.printable import printable_lines

if TYPE_CHECKING:
    from fedbus.console.client import Client


def track(
    to: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="TARGET",
            help="tensorboard:DIR, mlflow:http://HOST:PORT or wandb-offline:DIR; once per target.",
        ),
    ],
    job: Annotated[
        str | None,
        typer.Argument(help="Id of the job; without one, every job that asks for it by its key `track`, for ever."),
    ] = None,
    broker_url: BrokerUrl = None,
) -> None:
    """Write the curves of a job to other tools until it ends; started again, it goes on without doubling a point."""
    from fedbus.tracking.sink import Target
    from fedbus.tracking.track import track as follow
    from fedbus.tracking.track import track_wanted

    targets = [Target.parse(text) for text in dict.fromkeys(to)]

    def say(text: str) -> None:
        typer.echo(printable_lines(text), err=True)

    async def run(client: Client) -> None:
        if job is None:
            await track_wanted(client, targets, say=say)
        else:
            await follow(client, job, targets, say=say)

    with_client(run, broker_url)
