"""What watchers of a job are told about its broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from fedbus.aggregator.desk.broker_watch import BrokerWatch
from fedbus.bus.connection import LinkState
from fedbus.core.protocol import events


@dataclass
class FakeJobs:
    runners: dict[str, object] = field(default_factory=dict)


class Said(asyncio.Queue[tuple[str, str, str]]):
    """An announcer that only remembers events."""

    async def event(self, job: str, happened: events.Happened) -> None:
        await self.put((happened.kind, job, happened.text))


async def nothing() -> None:
    pass


async def told(watch: BrokerWatch, *jobs: str, times: int) -> list[tuple[str, str, str]]:
    said, fakes = Said(), FakeJobs(dict.fromkeys(jobs))
    task = asyncio.create_task(watch.run(fakes, said, declare=nothing))  # type: ignore[arg-type]
    found: list[Any] = [await said.get() for _ in range(times)]
    task.cancel()
    return found


async def test_an_outage_is_told_to_every_running_job_when_it_is_over() -> None:
    watch = BrokerWatch()
    for state in (LinkState.CONNECTED, LinkState.LOST, LinkState.UNREACHABLE, LinkState.CONNECTED):
        watch.on_state(state, "")
    found = await told(watch, "heart", "kidney", times=2)
    assert [(kind, job) for kind, job, _ in found] == [("broker-back", "heart"), ("broker-back", "kidney")]
    assert found[0][2].startswith("the broker could not be reached for 0 s")


async def test_an_alarm_is_told_when_it_is_over() -> None:
    watch = BrokerWatch()
    for state in (LinkState.CONNECTED, LinkState.BLOCKED, LinkState.CONNECTED):
        watch.on_state(state, "")
    ((kind, job, text),) = await told(watch, times=1)
    assert (kind, job) == (events.BrokerUnblocked.kind, events.NOBODY)
    assert "memory or disk alarm" in text
