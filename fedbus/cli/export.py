"""`fedbus export`: a job's model in the form that others load, with its model card."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli.jobs import BrokerUrl, JobId, progress_of, version_of, with_client
from fedbus.runtime.printable import printable

if TYPE_CHECKING:
    from fedbus.console.client import Client
    from fedbus.core.protocol.answers import JobDetail


class Format(StrEnum):
    SAFETENSORS = "safetensors"
    MONAI_BUNDLE = "monai-bundle"
    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"


def export(
    job: JobId,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A folder that does not exist yet, or is empty.")],
    kind: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.SAFETENSORS,
    version: Annotated[str, typer.Option(metavar="best|last|N", help="Which version.")] = "best",
    broker_url: BrokerUrl = None,
) -> None:
    """Write a job's model for others to load, with a model card.

    It is read back in a fresh process and compared with the model; where
    that fails nothing is left. All formats but safetensors need the task
    of the job installed here.
    """
    import tempfile

    from fedbus.export.folder import check_place

    wanted = version_of(version)
    check_place(to)
    with tempfile.TemporaryDirectory(prefix="fedbus-export-") as folder:
        params = Path(folder) / "params.safetensors"

        async def fetch(client: Client) -> tuple[JobDetail, int]:
            detail = await client.job(job)
            return detail, (await client.get(job, wanted, params, progress=progress_of(sys.stderr))).version

        detail, found = with_client(fetch, broker_url)
        from fedbus.export.export import export as write

        card = write(detail, version=found, params=params, kind=kind.value, to=to)
    typer.echo(f"version {found} of {printable(job)} as {kind.value} in {printable(str(to))}: {card['verified']}")
