"""Training in virtual time: what a site's trainer process does, for all simulated sites, with one model.

What lives here: base params in, update out. What may not: when it happens (see `loop`), what becomes of the update.
The same tasks, `Run`, seeds and codec as in a trainer process; only the clock is not the machine's.

The model's params are views of one flat vector where every one is float32, so that loading a base is one copy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fedbus.core.job.seeds import training_seed
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import DEFAULT_RATIO, Code
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import LayoutError, TaskError
from fedbus.simulation.residual import HeldResidual
from fedbus.tensors.params import flatten, load_params_, unflatten
from fedbus.tensors.sharing import Sharing, freeze_, inventory_of, layout_of, parts_of
from fedbus.training.answers import scoring_answer, training_answer
from fedbus.training.device import seed_everything
from fedbus.training.losses import Losses
from fedbus.training.program import TaskProgram
from fedbus.training.run import Pace, Run
from fedbus.training.task import Scores, Task
from fedbus.training.update import UpdateMaker

STEPS_OF_A_DELAY = 10
"""With a budget in seconds a delay says what so many steps take."""

Transform = Callable[[str, Tensor], Tensor]
"""(site, delta float32 [numel]) → what the site sends instead, which may be changed afterwards; for scenarios with
faults and attackers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One update on its way. `frames` are what a site would send; the seconds of its effort are virtual."""

    update_id: UpdateId
    base_version: int
    effort: Effort
    frames: tuple[bytes, ...]

    @property
    def body_bytes(self) -> int:
        return sum(map(len, self.frames))


class VirtualClock:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Trainer:
    """Trains and scores for every site; one model, whose params are overwritten at each call."""

    def __init__(self, spec: TrainingSpec, task: Task, *, transform: Transform | None = None) -> None:
        seed_everything(spec.seed)
        self._spec = spec
        self._code = Code(spec.codec.up.kind)
        self._transform = transform
        self._model = task.model()
        inventory = inventory_of(self._model)
        self._parts = parts_of(inventory, Sharing.of(spec))
        freeze_(self._model, self._parts.frozen)
        self.layout = self._parts.layout
        self.initial = flatten(self._model.state_dict(), self.layout, torch.empty(self.layout.numel))
        self._work = self.initial.clone()
        self._delta = torch.empty_like(self._work)
        self._linked = _link_(self._model, unflatten(self._work, self.layout))
        own = self._parts.own if spec.keep or spec.travel else ()
        self._own = {name: inventory.tensors[name] for name in own}
        self._kept: dict[str, dict[str, Tensor]] = {}
        self._fresh = _copies(self._own)
        self._makers: dict[str, UpdateMaker] = {}
        self._residuals: dict[str, HeldResidual] = {}

    def train(
        self,
        task: Task,
        update_id: UpdateId,
        base: Tensor,
        *,
        base_version: int,
        delay_s: float,
        steps: int | None = None,
    ) -> Trained:
        """Train from `base`, float32 [numel], which is only read; `delay_s` is what the job's local work takes.

        `steps`: make so many instead of the job's `local.steps`, in as much less time.
        Raises TaskError when the training leaves params that are not finite.
        """
        self._load_(base, update_id.site)
        seed = training_seed(self._spec.seed, update_id)
        seed_everything(seed)
        clock = VirtualClock()
        in_seconds, usual = self._spec.local.seconds is not None, self._spec.local.steps
        share = 1.0 if steps is None or usual is None else steps / usual
        run = Run(
            self._spec.local if steps is None else self._spec.local.model_copy(update={"steps": steps}),
            seed=seed,
            pace=Pace(step_delay_s=delay_s / STEPS_OF_A_DELAY if in_seconds else 0.0),
            clock=clock.read,
            sleep=clock.sleep,
        )
        num_examples, _ = training_answer(self._program(task).train(run), run.losses)
        if self._own:
            self._kept[update_id.site] = _copies(self._own)
        seconds = clock.now if in_seconds else delay_s * share
        effort = Effort(num_examples=num_examples, steps=run.steps_done, seconds=seconds)
        frames, effort = self._frames(update_id.site, base, effort, losses=run.losses, seed=seed)
        return Trained(update_id=update_id, base_version=base_version, effort=effort, frames=frames)

    def score(self, task: Task, params: Tensor, *, site: str) -> Scores:
        """Score `params`, float32 [numel], on a site's test data; metrics that are not finite are left out."""
        self._load_(params, site)
        num_examples, metrics = scoring_answer(self._program(task).evaluate())
        return Scores(metrics=metrics.values, num_examples=num_examples)

    def check_fits(self, task: Task, site: str) -> None:
        """Raise LayoutError when a site's task makes another model."""
        if layout_of(task.model(), Sharing.of(self._spec)).digest != self.layout.digest:
            raise LayoutError(f"the task of {site} makes another model than that of the first site")

    def decided(self, update_id: UpdateId, *, refused: bool) -> None:
        """The update's receipt came: what error feedback took for a refused one goes back."""
        residual = self._residual(update_id.site)
        if residual is not None:
            residual.decided(refused=refused)

    def _frames(
        self, site: str, base: Tensor, effort: Effort, *, losses: Losses, seed: int
    ) -> tuple[tuple[bytes, ...], Effort]:
        try:
            return self._maker(site).make_(
                self._trained(),
                base,
                effort,
                losses=losses,
                seed=seed,
                take=tuple[bytes, ...],
                residual=self._residual(site),
            )
        except TaskError as exc:
            raise TaskError(f"{site}: {exc}") from exc

    def _program(self, task: Task) -> TaskProgram:
        return TaskProgram(task, seed=self._spec.seed, model=self._model)

    def _maker(self, site: str) -> UpdateMaker:
        if site not in self._makers:
            self._makers[site] = UpdateMaker(
                self.layout,
                self._code,
                chunk_bytes=self._spec.chunk_bytes,
                ratio=self._spec.codec.up.ratio or DEFAULT_RATIO,
                frozen=self._parts.frozen,
                filters=() if self._transform is None else (partial(self._transform, site),),
            )
        return self._makers[site]

    def _residual(self, site: str) -> HeldResidual | None:
        if not self._code.is_biased:
            return None
        if site not in self._residuals:
            self._residuals[site] = HeldResidual(self.layout.numel)
        return self._residuals[site]

    def _load_(self, params: Tensor, site: str) -> None:
        self._work.copy_(params)
        if not self._linked:
            load_params_(self._model.state_dict(), unflatten(self._work, self.layout))
        with torch.no_grad():
            for name, tensor in self._kept.get(site, self._fresh).items():
                self._own[name].copy_(tensor)

    def _trained(self) -> Tensor:
        """The params after a training, in a vector that is free for an update to be made in."""
        if self._linked:
            return self._delta.copy_(self._work)
        return flatten(self._model.state_dict(), self.layout, self._delta)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _link_(model: nn.Module, views: Mapping[str, Tensor]) -> bool:
    """Make the model's params and buffers views of a flat vector; False, and no change, when some cannot be."""
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    if not all(name in own and own[name].dtype == torch.float32 for name in views):
        return False
    for name, view in views.items():
        own[name].data = view
    return True


def site_generator(seed: int, site: str) -> random.Random:
    """Return what a site's delays are drawn from: no other site's events change them."""
    return random.Random(f"site/{seed}/{site}")
