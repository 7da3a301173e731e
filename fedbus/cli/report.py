"""`fedbus report`: a job as a page for people, or as JSON."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli.jobs import BrokerUrl, JobId, with_client
from fedbus.runtime.printable import printable

if TYPE_CHECKING:
    from fedbus.console.client import Client
    from fedbus.report.page import Page

Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


class Form(StrEnum):
    HTML = "html"
    JSON = "json"


def report(
    job: JobId,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="A file .html or .json; - is standard output.")],
    output: Annotated[Form, typer.Option("--output", "-o", help="What standard output gets.")] = Form.HTML,
    force: Force = False,
    broker_url: BrokerUrl = None,
) -> None:
    """Write what is known of a job as one page that can be read, printed and kept, or as JSON."""
    from fedbus.report.files import check_free, write_report
    from fedbus.report.page import as_html, as_json

    to_stdout = str(to) == "-"
    if not to_stdout:
        check_free(to, force=force)
    page = with_client(lambda client: _page(client, job), broker_url)
    if to_stdout:
        typer.echo(as_json(page) if output is Form.JSON else as_html(page), nl=False)
        return
    write_report(page, to, force=force)
    typer.echo(f"report of {printable(job)}: {printable(str(to))}")


async def _page(client: Client, job: str) -> Page:
    import time

    from fedbus.console.comparing import follow_up_of
    from fedbus.console.report.job import job_page

    detail = await client.job(job)
    follow_up = await follow_up_of(client, detail)
    return job_page(detail, await client.history(job), now=time.time(), follow_up=follow_up)
