"""Where a training's first params come from: a site that makes them, a file, or a version that another job has left.

That version is copied before a site is asked: the other job may be forgotten from then on.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from fedbus.aggregator.job.initial_params import Origin
from fedbus.aggregator.job.kept_versions import open_version
from fedbus.aggregator.model.given import copy_once
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.model.params_bytes import ParamsBytes
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.spec.continues import ContinuesSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import DiskFullError, LayoutError, StoreError
from fedbus.export.params_file import check_readable
from fedbus.store.files import make_folder
from fedbus.store.ledger import Ledger
from fedbus.store.rows import JobRow


def origin_of(spec: TrainingSpec, keeper: ModelKeeper, *, job: str, jobs: Path, params: Path, ledger: Ledger) -> Origin:
    """What the spec says. `jobs` has the folders of all jobs, `params` the files that specs name."""
    if spec.continues is not None:
        return OfAJob(spec.continues, keeper, folder=jobs / job / "start", jobs=jobs, ledger=ledger)
    if spec.initial_params is not None:
        return OfAFile(spec.initial_params, keeper, params=params)
    return OfASite(keeper)


class OfASite:
    """The site that is asked makes the params; see `Origin`."""

    file = ""

    def __init__(self, keeper: ModelKeeper) -> None:
        self._keeper = keeper

    def check(self) -> None:
        """Nothing can be wrong yet."""

    def adopt(self, manifest: m.UpdateManifest) -> Layout:
        return self._keeper.adopt_initial(manifest)


class OfAFile:
    """A file of the params folder; see `Origin`."""

    def __init__(self, name: str, keeper: ModelKeeper, *, params: Path) -> None:
        self.file = name
        self._path = params / name
        self._keeper = keeper

    def check(self) -> None:
        try:
            check_readable(self._path)
        except StoreError as exc:
            raise LayoutError(f"initial_params: {exc}; put the file there or correct the job") from exc

    def adopt(self, manifest: m.UpdateManifest) -> Layout:
        try:
            return self._keeper.adopt_file(manifest, self._path)
        except LayoutError as exc:
            raise LayoutError(f"initial_params: {exc}") from exc


class OfAJob:
    """A version of another job, copied to `folder`; see `Origin`. The copy goes once it is version 0."""

    def __init__(
        self, continues: ContinuesSpec, keeper: ModelKeeper, *, folder: Path, jobs: Path, ledger: Ledger
    ) -> None:
        self._continues = continues
        self._keeper = keeper
        self._copy = folder / "params.safetensors"
        self._jobs = jobs
        self._ledger = ledger
        self._says = continues.says

    @property
    def file(self) -> str:
        return self._says

    def check(self) -> None:
        try:
            make_folder(self._copy.parent)
            self._says = copy_once(self._copy, self._open)
            check_readable(self._copy)
        except DiskFullError:
            raise  # waited out
        except StoreError as exc:
            raise LayoutError(f"continues: {exc}") from exc

    def adopt(self, manifest: m.UpdateManifest) -> Layout:
        try:
            layout = self._keeper.adopt_file(manifest, self._copy)
        except LayoutError as exc:
            text = str(exc).replace(str(self._copy), self._says)
            raise LayoutError(f"continues: {text}") from exc
        shutil.rmtree(self._copy.parent, ignore_errors=True)
        return layout

    def _open(self) -> tuple[str, ParamsBytes]:
        row = self._ledger.job(self._continues.job)
        why = why_not(self._continues, row)
        if row is None or why:
            raise StoreError(why)
        version, source = open_version(self._jobs / row.job, row, self._continues.version)
        return f"version {version} of {row.job}", source


def why_not(continues: ContinuesSpec, row: JobRow | None) -> str:
    """Why a job cannot be continued, and what to do, from its row; empty when it may be."""
    job = continues.job
    if row is None:
        return f"no job {job!r}: `fedbus jobs` lists them"
    if row.spec.get("kind", "training") != "training":
        return f"job {job} trains nothing: name a training"
    if not m.JobState(row.state).ended:
        return f"job {job} is {row.state}: submit again when it has ended, or end it with `fedbus abort {job}`"
    return ""
