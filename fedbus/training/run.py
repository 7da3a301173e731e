"""One local training: the budget a job gives it, its pace, its seed, and the way out when it is cancelled.

What lives here: what a task's `train` may use. What may not: the model's way in and out (see `session`), sockets.
The budget is exactly one of
    steps     optimizer steps
    epochs    passes over the site's examples, rounded up to whole steps
    seconds   wall time; a step that has begun is finished, and at least one is made
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from fedbus.core.spec.training import LocalSpec
from fedbus.errors import ContractError
from fedbus.training.ahead import Ahead
from fedbus.training.losses import Losses
from fedbus.training.ranks.team import Decision, Slice, Team, slice_of
from fedbus.training.ranks.whole import whole
from fedbus.training.sayable import type_name

PROGRESS_EVERY_S = 0.5
AHEAD = 3
"""Batches that are made before they are asked for."""

Batch = TypeVar("Batch")


class TrainingCancelled(BaseException):
    """Leaves a task's `train` between two steps.

    No Exception, so that a task which catches its own errors does not catch this; it never leaves the session.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Makes a fast machine train like a slow one, for demos and tests.

    After each step the run sleeps `slowdown - 1` times what the step took, plus `step_delay_s` seconds.
    """

    slowdown: float = 1.0
    step_delay_s: float = 0.0

    def __post_init__(self) -> None:
        if not (1 <= self.slowdown < math.inf and 0 <= self.step_delay_s < math.inf):
            raise ValueError(f"expected slowdown >= 1 and step_delay_s >= 0, got {self}")

    def pause_s(self, step_s: float) -> float:
        """Seconds to sleep after a step that took `step_s`."""
        return (self.slowdown - 1) * step_s + self.step_delay_s


class Run:
    """What a task's `train` gets beside the model.

    `sleep` may return early (when the run is cancelled). `progress` gets (step, steps, loss) at most
    every half second; steps is 0 when the budget is in seconds, loss is None when the task reports none.
    """

    def __init__(
        self,
        local: LocalSpec,
        *,
        seed: int = 0,
        device: torch.device | None = None,
        pace: Pace | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int, float | None], None] = lambda step, steps, loss: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        team: Team | None = None,
    ) -> None:
        self.batch_size = local.batch_size
        self.learning_rate = local.learning_rate
        self.device = device or torch.device("cpu")
        self.generator = torch.Generator().manual_seed(seed)
        self.steps_done = 0
        self.data_wait_s = 0.0
        """Seconds in which steps waited for what `fetched` makes."""
        self._local = local
        self._anchor: dict[str, Tensor] = {}
        self._pace = pace or Pace()
        self._cancelled = cancelled
        self._progress = progress
        self._clock = clock
        self._sleep = sleep
        self._told_at = -math.inf
        self.team = team
        self._reported: list[Tensor] = []
        self.losses = Losses()

    @property
    def rank(self) -> int:
        """Number of this process among the `ranks` that train together; all have the same seed."""
        return 0 if self.team is None else self.team.rank

    @property
    def ranks(self) -> int:
        """How many processes train together, each with its slice of every batch; 1 on a single device."""
        return 1 if self.team is None else self.team.ranks

    def steps(self, per_epoch: int) -> Iterator[int]:
        """Yield step numbers from 0 until the budget is spent; `per_epoch` steps are one pass over the data.

        Raises TrainingCancelled when the run was cancelled, between two steps.
        """
        if per_epoch < 1:
            text = f"a run needs at least one step per epoch, got {per_epoch}: is the training set empty?"
            raise ContractError.of_job(text)
        total = self._total_steps(per_epoch)
        started = self._clock()
        while self._goes_on(total, started):
            before = self._clock()
            yield self.steps_done
            self.steps_done += 1
            pause = self._pace.pause_s(self._clock() - before)
            self._tell(total)
            if pause > 0:
                self._sleep(pause)

    def batches(self, num_examples: int) -> Iterator[Tensor]:
        """Yield int64 index tensors [<= batch_size] over shuffled examples until the budget is spent.

        Of several ranks each gets its slice of the same batch; the next one is asked for when its step has been made.
        """
        rows = self._rows(num_examples)
        for _ in self.steps(self._per_epoch(num_examples)):
            _, ours = next(rows)
            self._weigh(ours)
            yield ours.rows.to(self.device)

    def fetched(self, num_examples: int, make: Callable[[int, Tensor], Batch]) -> Iterator[Batch]:
        """Yield `make(step, rows)` for the rows that `batches` would give, on the CPU; a thread makes them ahead.

        What a step waits for its batch is counted in `data_wait_s`. An error of `make` is raised here. `make` is called
        for AHEAD steps that are never made; what it draws at random must follow from its arguments.
        """
        rows = self._rows(num_examples)

        def made() -> tuple[Batch, Slice]:
            step, ours = next(rows)
            return make(step, ours.rows), ours

        with Ahead(made, most=AHEAD) as batches:
            for _ in self.steps(self._per_epoch(num_examples)):
                asked = self._clock()
                batch, ours = batches.next()
                self.data_wait_s += self._clock() - asked
                self._weigh(ours)
                yield batch

    def _per_epoch(self, num_examples: int) -> int:
        return math.ceil(num_examples / self.batch_size)

    def _rows(self, num_examples: int) -> Iterator[tuple[int, Slice]]:
        """Steps from the next one on, each with this rank's shuffled examples, without end."""
        per_epoch = self._per_epoch(num_examples)
        order = torch.empty(0, dtype=torch.int64)
        for step in itertools.count(self.steps_done):
            at = step % per_epoch * self.batch_size
            if at == 0 or len(order) == 0:
                order = torch.randperm(num_examples, generator=self.generator)
            yield step, slice_of(order[at : at + self.batch_size], self.rank, self.ranks)

    def _weigh(self, ours: Slice) -> None:
        if self.team is not None:
            self.team.weight = ours.weight

    def anchor_to(self, model: nn.Module) -> None:
        """Copy a model's params as the base of the FedProx term; before `proximal`, where `local.proximal_mu` > 0."""
        if self._local.proximal_mu:
            self._anchor = {name: param.detach().clone() for name, param in model.named_parameters()}

    def proximal(self, model: nn.Module) -> Tensor:
        """Return mu/2 * |params - base params|^2, a scalar to add to the loss (FedProx, arXiv 1812.06127).

        It is 0 unless the job sets `local.proximal_mu`.
        """
        total = torch.zeros((), device=self.device)
        if self._local.proximal_mu == 0:
            return total
        for name, param in model.named_parameters():
            if param.requires_grad:
                total = total + (param - self._anchor[name]).float().square().sum()
        return total * (self._local.proximal_mu / 2)

    def whole(self, sums: Tensor) -> Tensor:
        """Return sums over the batch of all ranks from those over this rank's slice, for a loss that is made of them.

        Each rank calls it as often in a step, outside of `batches`. On a single device they come back as they are.
        """
        return whole(sums, self.team)

    def autocast(self) -> torch.autocast:
        """Return the context for the forward pass: bfloat16 when the job sets `local.autocast_bf16`, else nothing."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._local.autocast_bf16)

    def report(self, loss: Tensor | float) -> None:
        """Take the scalar loss of this step, for progress and for the update's metrics; it stays on its device.

        Raises ContractError for what is not one number: a loss per example is reported as its mean.
        """
        if self.team is None:
            self.losses.add(_scalar(loss))
        else:
            self._reported.append(_scalar(loss).float())

    @property
    def mean_loss(self) -> float | None:
        """Mean of the reported losses; None when the task reported none."""
        return self.losses.mean

    def _total_steps(self, per_epoch: int) -> int:
        if self._local.steps is not None:
            return self._local.steps
        if self._local.epochs is not None:
            return math.ceil(self._local.epochs * per_epoch)
        return 0

    def _spent(self, total: int, started: float) -> bool:
        if self._local.seconds is not None:
            return self.steps_done > 0 and self._clock() - started >= self._local.seconds
        return self.steps_done >= total

    def _goes_on(self, total: int, started: float) -> bool:
        """Whether another step is made; what rank 0 says holds for all ranks."""
        ours = Decision.CANCEL if self._cancelled() else Decision.OVER if self._spent(total, started) else Decision.GO
        if self.team is not None:
            ours = self.team.decide(ours)
            self._add_losses(self.team)
            self.team.weight = 1 / self.team.ranks
        if ours is Decision.CANCEL:
            raise TrainingCancelled
        return ours is Decision.GO

    def _add_losses(self, team: Team) -> None:
        """Take the loss of the step that was made: the mean over its whole batch."""
        if not self.steps_done:
            return
        ours = torch.stack(self._reported).mean() if self._reported else torch.zeros((), device=self.device)
        weight = team.weight if self._reported else 0.0
        pair = torch.stack([ours * weight, torch.full_like(ours, weight)]).to(self.device)
        team.sum_([pair])
        if self._reported:
            self.losses.add(pair[0] / pair[1])
        self._reported.clear()

    def _tell(self, total: int) -> None:
        now = self._clock()
        if now - self._told_at < PROGRESS_EVERY_S:
            return
        self._told_at = now
        last = self.losses.last
        self._progress(self.steps_done, total, None if last is None else float(last))


def _scalar(loss: object) -> Tensor:
    expected = "run.report() takes the loss of a step, one number such as loss.mean()"
    try:
        tensor = loss.detach() if isinstance(loss, Tensor) else torch.as_tensor(loss)
    except (TypeError, ValueError, RuntimeError) as exc:
        kind = type_name(type(loss))
        raise ContractError(f"{expected}; got {kind}: {exc}", said=f"{expected}; got a value of type {kind}") from exc
    if tensor.numel() != 1 or tensor.is_complex():
        text = f"{expected}; got a tensor of shape {list(tensor.shape)} and type {tensor.dtype}"
        raise ContractError.of_job(text)
    return tensor.reshape(())
