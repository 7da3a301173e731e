"""What a site keeps of a job for people at the site: the job's spec, and its newest model also when it has ended.

jobs/JOB/spec.json, model/     while the site works for the job
ended/JOB/spec.json, model/    afterwards, of the newest jobs as many as the site's `keep_models`
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedbus.core.spec import kinds
from fedbus.core.spec.head import JobSpec
from fedbus.errors import DataError, JobSpecError
from fedbus.site.job.model_files import Held, kept_in
from fedbus.site.settings import SiteSettings
from fedbus.store.files import replace_soon

_SPEC, _MODEL = "spec.json", "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSite:
    """A job whose model lies here. ended: the site works for it no more."""

    job: str
    spec: JobSpec
    held: Held
    ended: bool


def job_folder(settings: SiteSettings, job: str) -> Path:
    """Where the files of a job are while the site works for it."""
    return settings.state_dir / "jobs" / job


def _ended_folder(settings: SiteSettings, job: str) -> Path:
    return settings.state_dir / "ended" / job


def write_spec(folder: Path, spec: JobSpec) -> None:
    """Keep the spec of a job in its folder."""
    with replace_soon(folder / _SPEC) as beside:
        beside.write_text(json.dumps(spec.to_dict()))


def put_away(settings: SiteSettings, job: str) -> None:
    """Drop the files of a job that has ended, but for its newest model, which replaces that of the oldest job here."""
    folder, kept = job_folder(settings, job), _ended_folder(settings, job)
    with suppress(OSError):  # what cannot be kept is no reason to end the work for others
        if settings.keep_models and kept_in(folder / _MODEL) is not None and (folder / _SPEC).exists():
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(parents=True)
            for name in (_MODEL, _SPEC):
                (folder / name).rename(kept / name)
            older = sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in older[settings.keep_models :]:
                shutil.rmtree(path, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def discard(settings: SiteSettings, job: str) -> None:
    """Drop all files of a job that is forgotten."""
    for folder in (job_folder(settings, job), _ended_folder(settings, job)):
        shutil.rmtree(folder, ignore_errors=True)


def at_site(settings: SiteSettings, job: str | None) -> AtSite:
    """Return a job whose model is here, of None the one with the newest model. DataError when there is none."""
    folders = [settings.state_dir / name for name in ("jobs", "ended")]
    there = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if (path / _MODEL).is_dir()]
    for path in sorted(there, key=lambda path: (path / _MODEL).stat().st_mtime, reverse=True):
        if job in (None, path.name) and (found := _read(path, ended=path.parent == folders[1])) is not None:
            return found
    known = ", ".join(sorted({path.name for path in there})) or "none"
    wanted = "any job" if job is None else f"job {job}"
    raise DataError(
        f"no model of {wanted} is in {settings.state_dir}; jobs here: {known}. A site holds the model of a job that it "
        f"works for, and of the {settings.keep_models} that ended last (keep_models)"
    )


def _read(folder: Path, *, ended: bool) -> AtSite | None:
    kept = kept_in(folder / _MODEL)
    with suppress(OSError, ValueError, JobSpecError):
        spec = kinds.parse(json.loads((folder / _SPEC).read_text()))
        if kept is not None:
            return AtSite(job=folder.name, spec=spec, held=kept.held, ended=ended)
    return None
