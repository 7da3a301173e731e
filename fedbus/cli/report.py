"""`fedbus report`: a job as a page for people, or as JSON; into a folder both, and the model card."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedbus.cli.jobs import BrokerUrl, JobId, progress_of, with_client
from fedbus.runtime.printable import printable

if TYPE_CHECKING:
    from fedbus.console.client import Client
    from fedbus.core.protocol.answers import JobDetail, VersionLine
    from fedbus.report.page import Page

Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
HASHED = "not exported: this card stands beside a report, the params were only hashed"
PAGE, DATA = "report.html", "report.json"


class Form(StrEnum):
    HTML = "html"
    JSON = "json"


def report(
    job: JobId,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="DIR|FILE", help="A folder for all, or a file .html or .json; - prints it."),
    ],
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="An aggregator's state folder: read it and ask nobody.", show_default="the aggregator is asked"
        ),
    ] = None,
    output: Annotated[Form, typer.Option("--output", "-o", help="What standard output gets.")] = Form.HTML,
    force: Force = False,
    broker_url: BrokerUrl = None,
) -> None:
    """Write what is known of a job as one page that can be read, printed and kept, or as JSON.

    A folder gets the page, the JSON and, of a training, the model card. With
    --state-dir no broker and no aggregator need run; one may.
    """
    from fedbus.report.files import check_free, write_report
    from fedbus.report.page import as_html, as_json

    to_stdout, to_folder = str(to) == "-", not to.suffix or to.is_dir()
    if to_folder and not to_stdout:
        _check_folder(to, force=force)
    elif not to_stdout:
        check_free(to, force=force)
    detail, page = (
        with_client(lambda client: _asked(client, job), broker_url) if state_dir is None else _read(state_dir, job)
    )
    if to_stdout:
        typer.echo(as_json(page) if output is Form.JSON else as_html(page), nl=False)
        return
    if not to_folder:
        write_report(page, to, force=force)
        typer.echo(f"report of {printable(job)}: {printable(str(to))}")
        return
    to.mkdir(exist_ok=True)
    for name in (PAGE, DATA):
        write_report(page, to / name, force=force)
    card = _card(detail, to, state_dir, broker_url)
    typer.echo(f"report of {printable(job)}: {printable(str(to / PAGE))}, {DATA}{', ' if card else ''}{card}")


def _check_folder(to: Path, *, force: bool) -> None:
    from fedbus.errors import SettingsError
    from fedbus.report.files import check_free

    if not to.parent.is_dir() or (to.exists() and not to.is_dir()):
        raise SettingsError(f"--to: {to}: expected a folder, or the place of one, in a folder that exists")
    for name in (PAGE, DATA):
        check_free(to / name, force=force)


async def _asked(client: Client, job: str) -> tuple[JobDetail, Page]:
    from fedbus.console.comparing import follow_up_of

    detail = await client.job(job)
    follow_up = await follow_up_of(client, detail)
    return detail, _page(detail, await client.history(job), follow_up)


def _read(state_dir: Path, job: str) -> tuple[JobDetail, Page]:
    from fedbus.aggregator.desk.from_state import history_of, job_of
    from fedbus.errors import StoreError
    from fedbus.store.state_reader import StateReader

    with StateReader(state_dir) as state:
        detail, follow_up = job_of(state.ledger, job), None
        if after := (detail.result or {}).get("follow_up"):
            try:
                follow_up = job_of(state.ledger, after)
            except StoreError:
                follow_up = None  # it was forgotten
        return detail, _page(detail, history_of(state.ledger, job), follow_up)


def _page(detail: JobDetail, history: Sequence[VersionLine], follow_up: JobDetail | None) -> Page:
    import time

    from fedbus.console.report.job import job_page

    return job_page(detail, history, now=time.time(), follow_up=follow_up)


def _card(detail: JobDetail, to: Path, state_dir: Path | None, broker_url: str | None) -> str:
    """Write the model card of a training beside its report; its name, empty where there are no params."""
    import tempfile

    if detail.version is None:
        return ""
    if state_dir is not None:
        from fedbus.aggregator.desk.from_state import params_of

        found = params_of(detail, state_dir)
        return "" if found is None else _write_card(detail, *found, to)
    best = ((detail.result or {}).get("best") or {}).get("version")
    with tempfile.TemporaryDirectory(prefix="fedbus-report-") as folder:
        params, progress = Path(folder) / "params.safetensors", progress_of(sys.stderr)
        wanted = "last" if best is None else "best"
        fetched = with_client(lambda client: client.get(detail.job, wanted, params, progress=progress), broker_url)
        return _write_card(detail, fetched.version, params, to)


def _write_card(detail: JobDetail, version: int, params: Path, to: Path) -> str:
    from fedbus.export.card import CARD, card_of, write_card

    write_card({**card_of(detail, version=version, params=params, kind="safetensors"), "verified": HASHED}, to)
    return CARD
