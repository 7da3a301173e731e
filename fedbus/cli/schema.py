"""`fedbus schema`: what programs in other languages, and editors, need to know of fedbus."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Contract(StrEnum):
    BUS = "bus"
    JOB = "job"
    FEDERATION = "federation"
    POLICY = "policy"


def schema(
    what: Annotated[
        Contract,
        typer.Argument(help="bus: every message, as AsyncAPI. job, federation, policy: the files, as JSON schema."),
    ],
) -> None:
    """Print the schema of the bus, or of a file that people write: job.yaml, federation.yaml, policy.toml."""
    if what is Contract.BUS:
        from fedbus.contract.asyncapi import as_yaml

        typer.echo(as_yaml(), nl=False)
    else:
        from fedbus.contract.spec_schemas import as_json

        typer.echo(as_json(what), nl=False)
