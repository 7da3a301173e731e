"""One job in the trainer process: the program that trains, and the replica of the global params.

What lives here: what each command does, as plain calls that return the reply. What may not: sockets and threads (see
`process`). An error leaves the session usable; whether asking again can help is decided in `process`.

    base    = params of the loaded version, from the replica; the program gets it before every train and evaluate
    ranks   = other processes that train with this one, where the site gives the job several devices (see `ranks`)
    update  = what `update` makes of the params after training and the base, in a file of frames

Model copies held: the program's own, the replica, a vector for the delta, and with error feedback at the end of a
training the residual; beside them samples of the last base and delta (see `tensors.secant`). On CUDA all of them are
there: codes are made and undone on the device, only they pass to the host.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.statistics import sealed_losses
from fedbus.core.spec.training import LocalSpec
from fedbus.errors import DecodeError, LayoutError, NotTogetherError, ProtocolError
from fedbus.tensors import codec
from fedbus.tensors.params import flatten, unflatten
from fedbus.tensors.replica import Replica
from fedbus.tensors.sharing import Sharing, parts_of
from fedbus.training import protocol as p
from fedbus.training.answers import Metrics, Notebook, cases_of, scoring_answer, training_answer
from fedbus.training.device import is_broken, pick_device, seed_everything
from fedbus.training.frames_file import read_frames, write_frames
from fedbus.training.intervals import Intervals, Measured, Sureness
from fedbus.training.kept import KeptTensors
from fedbus.training.losses import Losses
from fedbus.training.model_file import write_state_dict
from fedbus.training.program import Program, ProgramLoader, load_program
from fedbus.training.ranks.leader import Crew
from fedbus.training.ranks.team import Team
from fedbus.training.residual_files import ResidualFiles
from fedbus.training.run import Pace, Run, TrainingCancelled
from fedbus.training.sayable import trouble_of
from fedbus.training.update import UpdateMaker

Progressed = Callable[[int, int, float | None], None]
TRAINS_NOTHING = {"steps": 1, "batch_size": 1, "learning_rate": 1.0}
"""The budget of a job that is never asked to train."""
log = logging.getLogger(__name__)


class Session:
    """A job that was opened. Made once per process; owns the program and the replica."""

    def __init__(
        self, opening: p.Open, load: ProgramLoader = load_program, *, leave: Callable[[int], None] = os._exit
    ) -> None:
        """Load the program and the site's data; TaskError or DataError say why that fails.

        leave: ends this process with an exit code, once another rank of a training has ended.
        """
        torch.set_num_threads(opening.threads)
        self.device = pick_device(opening.device)
        self._local = LocalSpec.model_validate(dict(opening.local or TRAINS_NOTHING))
        self._pace = Pace(slowdown=opening.slowdown, step_delay_s=opening.step_delay_s)
        self._chunk_bytes = opening.chunk_bytes
        # only CUDA is known to decode to the bits that the digest asks for
        flat_device = self.device if self.device.type == "cuda" else torch.device("cpu")
        self._notebook = Notebook()
        self._intervals = Intervals(fewest=opening.fewest_cases)
        self._crew = Crew(opening, leave=leave) if opening.ranks else None
        self._team: Team | None = None
        try:
            self._program = load(opening, self.device)
        except BaseException:
            self.close()
            raise
        inventory = self._program.inventory()
        parts = parts_of(inventory, Sharing(travel=opening.travel, keep=opening.keep, frozen=opening.frozen))
        self._program.freeze(parts.frozen)
        self.layout = parts.layout
        self._own = {name: inventory.tensors[name] for name in sorted(parts.own)}
        self._kept = KeptTensors(Path(opening.kept)) if opening.keep or opening.travel else None
        self._kept_before = KeptTensors(Path(opening.kept_before)) if opening.kept_before else None
        self._own_differ = True
        """Whether what stays here may be another thing in the program than in its file."""
        self._replica = Replica(self.layout, device=flat_device)
        # kept, for a new one costs more than the subtraction: the system gives its pages one by one
        self._vector = torch.empty(self.layout.numel, device=flat_device)
        self._updates = UpdateMaker(
            self.layout, Code(opening.up), chunk_bytes=opening.chunk_bytes, ratio=opening.ratio, frozen=parts.frozen
        )
        self._version: int | None = None
        self._restore_own()
        if self._crew is not None:
            self._team = self._crew.join(self.layout.digest, self.device)

    def close(self) -> None:
        """End the other ranks."""
        if self._crew is not None:
            self._crew.close()
        self._crew = self._team = None

    def opened(self) -> p.Opened:
        others = "" if self._team is None else f", {self._team.ranks} ranks"
        return p.Opened(device=f"{self.device}{others}", layout_digest=self.layout.digest, numel=self.layout.numel)

    def make_initial(self, command: p.MakeInitial) -> p.Made:
        """Write fresh params under the job's seed, exactly."""
        flat = self._vector.zero_()
        if not command.layout_only:
            flatten(self._program.fresh(), self.layout, flat)
        frames = codec.encode(flat, self.layout, Code.FP32, chunk_bytes=self._chunk_bytes, seed=0)
        sizes = write_frames(Path(command.path), frames)
        return p.Made(layout=self.layout.to_dict(), frame_sizes=sizes, digest=self.layout.digest)

    def load(self, command: p.Load) -> p.Loaded | p.LoadFailed:
        """Bring the replica to a version and verify its digest.

        Raises LayoutError, and keeps the replica, when the job's params are not those of this site's task.
        """
        try:
            if command.layout is not None:
                check_same_layout(Layout.from_dict(command.layout), self.layout)
            self._follow(command)
        except (DecodeError, OSError) as exc:
            self._version = None
            trouble = trouble_of(exc)
            return p.LoadFailed(version=command.version, reason=trouble.said, detail=trouble.traceback)
        return p.Loaded(version=command.version)

    def train(self, command: p.Train, cancel: threading.Event, progress: Progressed) -> p.Trained | p.Cancelled:
        """Train from the loaded version and write the delta; nothing is written when `cancel` is set meanwhile.

        Raises ContractError for an answer that is none, TaskError for params that are not finite.
        """
        base_version = self._load_base()
        self._own_differ = True
        run = self._run(command, cancel, progress)
        started = time.monotonic()
        try:
            if self._crew is not None:
                self._crew.train(command)
            result = self._program.train(run)
        except NotTogetherError as exc:
            self._go_alone(exc)
            return self.train(command, cancel, progress)
        except TrainingCancelled:
            return p.Cancelled(base_version=base_version, steps=run.steps_done)
        except Exception as exc:
            if not cancel.is_set() or is_broken(exc):
                raise
            # a task may close its data or its workers when it is told to end, and trip over that
            log.warning("ended by an error after it was cancelled: %s", trouble_of(exc).traceback)
            return p.Cancelled(base_version=base_version, steps=run.steps_done)
        seconds = time.monotonic() - started
        num_examples, metrics = training_answer(result, run.losses, self._program.may_leave)
        effort = Effort(
            num_examples=num_examples,
            steps=run.steps_done,
            seconds=seconds,
            data_wait_s=run.data_wait_s,
            metrics=metrics.values,
        )
        began = time.monotonic()
        frame_sizes, effort = self._write_update(effort, run.losses, command)
        encode_s = time.monotonic() - began
        local_sizes = self._write_local(Path(command.local)) if command.local else ()
        return p.Trained(
            base_version=base_version,
            frame_sizes=frame_sizes,
            effort=effort,
            notes=self._notebook.fresh(metrics.notes),
            local_sizes=local_sizes,
            encode_s=encode_s,
        )

    def score(self, command: p.Score) -> p.Scored:
        """Score the loaded version; ContractError for an answer that is none."""
        version = self._load_base()
        if version != command.version:
            raise ProtocolError(f"asked to score version {command.version}, version {version} is loaded: load it first")
        returned = self._program.evaluate()
        num_examples, metrics = scoring_answer(returned, self._program.may_leave)
        sure = self._sureness(returned, metrics, command) if command.intervals else Sureness()
        return p.Scored(
            version=version,
            metrics=metrics.values,
            num_examples=num_examples,
            not_finite=metrics.not_finite,
            notes=self._notebook.fresh([*metrics.notes, *sure.notes]),
            spreads=sure.spreads,
            differences=sure.differences,
            losses=sealed_losses(self._program.class_losses(), command.losses) if command.losses else {},
        )

    def _sureness(self, returned: object, metrics: Metrics, command: p.Score) -> Sureness:
        measured = Measured(metrics=metrics.values, cases=cases_of(returned, metrics))
        return self._intervals.of(measured, model=command.model, against=command.against)

    def save(self, command: p.Save) -> p.Saved:
        """Write the loaded version with what stays here; LayoutError when another model lies where it is to go."""
        version = self._load_base()
        if version != command.version:
            raise ProtocolError(f"asked to save version {command.version}, version {version} is loaded: load it first")
        write_state_dict(self._program.params(), Path(command.path), like=Path(command.like) if command.like else None)
        return p.Saved(version=version)

    def _go_alone(self, why: NotTogetherError) -> None:
        """From now on this process trains without other ranks, which would each have trained another model."""
        log.warning("%s: from now on %s alone trains; with ranks = 1 it does from the start", why, self.device)
        self.close()

    def ready(self) -> Program:
        """Return the program with the loaded version."""
        self._load_base()
        return self._program

    def _run(self, command: p.Train, cancel: threading.Event, progress: Progressed) -> Run:
        seed_everything(command.seed)
        return Run(
            self._local if command.steps is None else self._local.model_copy(update={"steps": command.steps}),
            seed=command.seed,
            device=self.device,
            pace=self._pace,
            cancelled=cancel.is_set,
            sleep=cancel.wait,
            progress=progress,
            team=self._team,
        )

    def _write_update(self, effort: Effort, losses: Losses, command: p.Train) -> tuple[tuple[int, ...], Effort]:
        """Write what a training brings, and after it what stays here; return the frames' sizes and the effort."""
        params = self._program.params()
        written = self._updates.make_(
            flatten(params, self.layout, self._vector),
            self._replica.flat,
            effort,
            losses=losses,
            seed=command.seed,
            take=partial(write_frames, Path(command.path)),
            residual=ResidualFiles(self.layout, command) if command.residual_after else None,
        )
        self._save_own(params)
        return written

    def _write_local(self, path: Path) -> tuple[int, ...]:
        """Write what was trained, as it is and whole; after the update, whose vector is free by then."""
        flat = flatten(self._program.params(), self.layout, self._vector)
        return write_frames(path, codec.encode(flat, self.layout, Code.FP32, chunk_bytes=self._chunk_bytes, seed=0))

    def _save_own(self, params: Mapping[str, object]) -> None:
        if self._kept is not None:
            self._kept.save({name: t for name in self._own if isinstance(t := params[name], Tensor)})
        self._own_differ = False

    def _restore_own(self) -> None:
        """What a training that failed or was cancelled has made of what stays here is dropped, as the rest of it is."""
        if self._kept is not None and self._own_differ:
            if self._kept.is_there:
                self._program.load(self._kept.read(self._own))
            else:
                self._begin_own()
                self._save_own(self._program.params())
        self._own_differ = False

    def _begin_own(self) -> None:
        """What stays here begins as the job that this one continues has left it, as far as it is the same."""
        if self._kept_before is None or not self._kept_before.is_there:
            return
        found = self._kept_before.of_these(self._own)
        self._program.load(found)
        log.info("%d of %d tensors that stay here begin as the job before has left them", len(found), len(self._own))

    def _follow(self, command: p.Load) -> None:
        version = self._version
        self._version = None
        if command.snapshot is not None:
            self._replica.load_snapshot_(read_frames(Path(command.snapshot)))
        elif version is None or version + len(command.deltas) != command.version:
            held = "nothing" if version is None else f"version {version}"
            raise DecodeError(f"{len(command.deltas)} deltas do not lead from {held} to version {command.version}")
        for path in command.deltas:
            self._replica.apply_delta_(read_frames(Path(path)))
        found = self._replica.digest
        if found != command.digest:
            raise DecodeError(f"version {command.version}: expected params with digest {command.digest}, got {found}")
        self._version = command.version

    def _load_base(self) -> int:
        if self._version is None:
            raise ProtocolError("no version is loaded: Load comes before Train and Score")
        self._program.load(unflatten(self._replica.flat, self.layout))
        self._restore_own()
        return self._version


def check_same_layout(job: Layout, ours: Layout) -> None:
    """Raise LayoutError that names up to three tensors which differ between the job and this site's task."""
    if job.digest == ours.digest:
        return
    theirs, own = ({spec.name: spec for spec in layout.tensors} for layout in (job, ours))
    both = sorted({**own, **theirs}.values(), key=lambda spec: spec.is_value)  # weights tell more than statistics
    names = [spec.name for spec in both if theirs.get(spec.name) != own.get(spec.name)]
    found = "; ".join(_difference(name, theirs.get(name), own.get(name)) for name in names[:3])
    rest = f"; and {len(names) - 3} more tensors" if len(names) > 3 else ""
    order = "" if names else "the same tensors stand in another order"
    raise LayoutError(f"{found}{rest}{order}: install the same version of the task at every site, check task_config")


def _difference(name: str, job: TensorSpec | None, ours: TensorSpec | None) -> str:
    if job is None or ours is None:
        have, make = (f"no {name}" if spec is None else f"{name} {_shape(spec)}" for spec in (job, ours))
    else:
        have, make = f"{name} {_shape(job)}", _shape(ours)
        if have.endswith(make):
            have, make = f"{name} {_role(job)}", _role(ours)
    return f"job's params have {have}, this site's task makes {make}"


def _role(spec: TensorSpec) -> str:
    """How a tensor travels, where two differ in nothing else."""
    tied = f", one with {', '.join(spec.aliases)}" if spec.aliases else ""
    return f"{spec.kind}{tied}"


def _shape(spec: TensorSpec) -> str:
    dtype = "" if spec.dtype == "float32" else f" {spec.dtype}"
    return f"({','.join(map(str, spec.shape))}){dtype}"
