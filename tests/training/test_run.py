from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fedbus.core.spec.training import LocalSpec
from fedbus.errors import TaskError
from fedbus.training.run import Pace, Run, TrainingCancelled


class FakeTime:
    """A clock that moves by sleeping and by `work`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def local(**budget: Any) -> LocalSpec:
    return LocalSpec(**({"batch_size": 4, "learning_rate": 0.1} | budget))


def run_with(time: FakeTime, spec: LocalSpec, **options: Any) -> Run:
    return Run(spec, clock=time.clock, sleep=time.sleep, **options)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        ({"steps": 1}, 1),
        ({"steps": 7}, 7),
        ({"epochs": 1.0}, 5),
        ({"epochs": 3.0}, 15),
        ({"epochs": 0.3}, 2),
        ({"seconds": 2.0}, 4),
        ({"seconds": 2.1}, 5),
        ({"seconds": 0.001}, 1),
    ],
)
def test_the_budget_ends_the_steps(budget: dict[str, float], steps: int) -> None:
    time = FakeTime()
    run = run_with(time, local(**budget))

    found = []
    for step in run.steps(per_epoch=5):
        time.work(0.5)
        found.append(step)

    assert found == list(range(steps))
    assert run.steps_done == steps


def test_a_slow_site_sleeps_in_proportion_to_its_steps() -> None:
    time = FakeTime()
    run = run_with(time, local(steps=2), pace=Pace(slowdown=10, step_delay_s=0.25))

    for step in run.steps(per_epoch=1):
        time.work(0.1 * (step + 1))

    assert time.slept == pytest.approx([9 * 0.1 + 0.25, 9 * 0.2 + 0.25])


def test_sleep_counts_for_a_budget_in_seconds() -> None:
    time = FakeTime()
    run = run_with(time, local(seconds=3.0), pace=Pace(slowdown=3))

    for _ in run.steps(per_epoch=1):
        time.work(0.5)

    assert run.steps_done == 2


def test_a_run_at_full_speed_never_sleeps() -> None:
    time = FakeTime()

    list(run_with(time, local(steps=3)).steps(per_epoch=1))

    assert time.slept == []


@pytest.mark.parametrize("pace", [{"slowdown": 0.5}, {"slowdown": math.inf}, {"step_delay_s": -1.0}])
def test_a_pace_that_makes_no_sense_is_refused(pace: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="slowdown >= 1"):
        Pace(**pace)


@pytest.mark.parametrize("cancel_after", [0, 3])
def test_cancel_leaves_train_between_two_steps(cancel_after: int) -> None:
    run = run_with(FakeTime(), local(steps=10), cancelled=lambda: run.steps_done >= cancel_after)

    with pytest.raises(TrainingCancelled):
        list(run.steps(per_epoch=1))

    assert run.steps_done == cancel_after


def test_cancel_is_no_exception_that_a_task_would_catch() -> None:
    assert not issubclass(TrainingCancelled, Exception)


def test_progress_is_told_at_most_every_half_second_with_the_newest_loss() -> None:
    time, told = FakeTime(), []
    run = run_with(time, local(steps=5), progress=lambda *facts: told.append(facts))

    for step in run.steps(per_epoch=1):
        time.work(0.2)
        run.report(torch.tensor(float(step)))

    assert told == [(1, 5, 0.0), (4, 5, 3.0)]
    assert run.mean_loss == 2.0


def test_a_run_without_reports_has_no_loss() -> None:
    time, told = FakeTime(), []
    run = run_with(time, local(seconds=0.1), progress=lambda *facts: told.append(facts))

    for _ in run.steps(per_epoch=1):
        time.work(1)

    assert told == [(1, 0, None)]
    assert run.mean_loss is None


def test_batches_visit_every_example_once_per_epoch() -> None:
    run = run_with(FakeTime(), local(epochs=2.0))

    batches = list(run.batches(10))

    assert [len(batch) for batch in batches] == [4, 4, 2] * 2
    assert sorted(torch.cat(batches[:3]).tolist()) == sorted(torch.cat(batches[3:]).tolist()) == list(range(10))
    assert not torch.equal(torch.cat(batches[:3]), torch.cat(batches[3:]))


def test_the_same_seed_gives_the_same_batches() -> None:
    first, again, other = (torch.cat(list(Run(local(steps=3), seed=seed).batches(12))).tolist() for seed in (1, 1, 2))

    assert first == again != other


def test_no_examples_are_an_error_of_the_task() -> None:
    with pytest.raises(TaskError, match="is the training set empty"):
        list(Run(local(steps=1)).batches(0))


def test_proximal_is_half_mu_times_the_squared_distance_from_the_base() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    run = Run(local(steps=1, proximal_mu=0.5))
    run.anchor_to(model)
    with torch.no_grad():
        model.weight.add_(2.0)

    term = run.proximal(model)
    term.backward()

    assert term.item() == pytest.approx(0.5 / 2 * (4 + 4))
    assert model.weight.grad is not None
    assert model.weight.grad.flatten().tolist() == pytest.approx([0.5 * 2, 0.5 * 2])


def test_proximal_is_zero_unless_the_job_asks_for_it() -> None:
    assert Run(local(steps=1)).proximal(torch.nn.Linear(2, 1)).item() == 0


@pytest.mark.parametrize(("wanted", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_autocast_is_the_jobs_choice(wanted: bool, dtype: torch.dtype) -> None:
    run = Run(local(steps=1, autocast_bf16=wanted))

    with run.autocast():
        assert torch.nn.Linear(2, 1)(torch.ones(1, 2)).dtype == dtype


def test_fetched_batches_are_those_of_the_same_seed_and_are_made_ahead_of_their_steps() -> None:
    def rows_of(step: int, rows: torch.Tensor) -> tuple[int, list[int]]:
        return step, rows.tolist()

    plain = [rows.tolist() for rows in Run(local(epochs=2), seed=3).batches(10)]
    fetched = list(Run(local(epochs=2), seed=3).fetched(10, rows_of))

    assert fetched == list(enumerate(plain))


def test_only_the_wait_for_a_batch_counts_as_waiting_for_data() -> None:
    time = FakeTime()
    run = run_with(time, local(steps=4))

    for _ in run.fetched(10, lambda step, rows: rows):
        time.work(0.5)

    assert run.steps_done == 4
    assert run.data_wait_s == 0.0  # the fake clock stands still while a batch is waited for


def test_an_error_while_a_batch_is_made_ends_the_training() -> None:
    def make(step: int, rows: torch.Tensor) -> int:
        if step == 2:
            raise KeyError(step)
        return step

    batches = Run(local(steps=9)).fetched(10, make)

    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(KeyError):
        next(batches)
