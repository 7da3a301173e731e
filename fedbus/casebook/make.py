"""From the files of a site to its page: the model that it holds, its task, its test data. Needs no broker."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedbus.casebook.casebook import casebook, drawn
from fedbus.errors import DataError, TaskError
from fedbus.report.files import FOR_THE_OWNER, check_free, write_report
from fedbus.report.page import Page
from fedbus.site.job import assignment
from fedbus.site.job.put_away import AtSite, at_site
from fedbus.site.settings import SiteSettings
from fedbus.store.files import make_folder
from fedbus.training import protocol as p
from fedbus.training.program import TaskProgram
from fedbus.training.session import Session

ATTEMPTS = 3
"""A site that works on replaces its files by newer ones; then they are looked for again."""


def write_casebook(
    settings: SiteSettings, job: str | None, *, to: Path | None, force: bool, worst: int, device: str, now: float
) -> Path:
    """Write the page of a job, of None the one whose model is newest, and return where it is.

    to: None is the site's own folder `reports`. Only the file's owner may read it. Raises FedbusError.
    """
    if to is not None:
        check_free(to, force=force)
    source, page = _page(settings, job, worst=worst, device=device, now=now)
    if to is None:
        folder = make_folder(settings.state_dir / "reports")
        folder.chmod(0o700)
        to, force = folder / f"{source.job}-version-{source.held.version}.html", True
    write_report(page, to, force=force, mode=FOR_THE_OWNER)
    return to


def _page(settings: SiteSettings, job: str | None, *, worst: int, device: str, now: float) -> tuple[AtSite, Page]:
    for left in reversed(range(ATTEMPTS)):
        source = at_site(settings, job)
        with (
            tempfile.TemporaryDirectory(prefix="fedbus-casebook-") as scratch,
            _session(settings, source, device=device, scratch=Path(scratch)) as (session, notes),
        ):
            loaded = session.load(assignment.load(source.held, since=None))
            if isinstance(loaded, p.LoadFailed):
                if left:
                    continue
                raise DataError(
                    f"the model of {source.job} that lies here cannot be read: {loaded.detail or loaded.reason}"
                )
            program = session.ready()
            if not isinstance(program, TaskProgram):
                raise TaskError(f"the program of {source.job} shows no cases")
            found = drawn(program.cases())
            page = casebook(source, found, site=settings.site_name, now=now, worst=worst, notes=notes)
            return source, page
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def _session(
    settings: SiteSettings, source: AtSite, *, device: str, scratch: Path
) -> Iterator[tuple[Session, list[str]]]:
    """Open the job as its trainer does, on a copy of what the job keeps here: that is the trainer's to write."""
    notes = []
    opening = assignment.opening(source.job, source.spec, settings, devices=[device])
    kept, copy = Path(opening.kept), scratch / "kept.safetensors"
    if kept.exists():
        shutil.copyfile(kept, copy)
        notes.append("Tensors that the job keeps at this site are those of its last training here.")
    elif opening.keep or opening.travel:
        notes.append("Tensors that the job keeps at this site are not here: fresh ones stand in for them.")
    session = Session(dataclasses.replace(opening, kept=str(copy)))
    try:
        yield session, notes
    finally:
        session.close()
