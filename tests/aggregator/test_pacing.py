"""Pacing: which site is told of which budget, and when."""

from __future__ import annotations

from typing import Any

from fedbus.aggregator.job.pacing import Pacing
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.spec.training import TrainingSpec


class Announcer:
    def __init__(self) -> None:
        self.told: list[tuple[str | None, Any]] = []

    async def tell(self, site: str | None, message: Any) -> None:
        self.told.append((site, message))


class Job:
    """Pacing of a job of 100 steps with the sites `fast` and `slow`."""

    def __init__(self, *, time_boxed: bool = True) -> None:
        local = {"steps": 100, "time_boxed": time_boxed, "batch_size": 8, "learning_rate": 0.1}
        spec = TrainingSpec.parse({"name": "heart", "task": "t", "local": local, "stop": {"versions": 9}})
        self.announcer = Announcer()
        self.pacing = Pacing("heart", spec, self.announcer)  # type: ignore[arg-type]

    async def trained(self, site: str, *, seconds: float, steps: int = 100) -> list[tuple[str | None, int]]:
        """An update comes; what is said to whom because of it."""
        self.announcer.told.clear()
        manifest = m.UpdateManifest(
            job="heart",
            update_id=f"{site}:0123abcd:1",
            kind=m.UpdateKind.DELTA,
            base_version=0,
            effort=Effort(num_examples=5, steps=steps, seconds=seconds),
            layout_digest="1a",
            frames=1,
            body_bytes=9,
        )
        await self.pacing.measured(manifest, active={"fast", "slow"})
        return [(to, message.steps) for to, message in self.announcer.told]


async def test_a_slow_site_is_told_of_fewer_steps_once_both_were_measured():
    job = Job()
    assert await job.trained("fast", seconds=1.0) == []
    assert await job.trained("slow", seconds=4.0) == [("slow", 25)]
    # what has not changed is not said again
    assert await job.trained("slow", seconds=1.0, steps=25) == []
    assert await job.trained("fast", seconds=1.0) == [("fast", 100)]


async def test_a_site_that_started_anew_is_told_again():
    job = Job()
    await job.trained("fast", seconds=1.0)
    await job.trained("slow", seconds=4.0)
    job.announcer.told.clear()
    await job.pacing.remind("slow")
    await job.pacing.remind("fast")
    assert job.announcer.told == [("slow", m.StepBudget(job="heart", steps=25))]


async def test_nobody_is_told_anything_in_a_job_that_is_not_time_boxed():
    job = Job(time_boxed=False)
    await job.trained("fast", seconds=1.0)
    assert await job.trained("slow", seconds=4.0) == []
