"""What the aggregator says goes out in lanes: a receipt never waits behind events, answers or what cannot be said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fedbus.aggregator.voice.announcer import MOST_ANSWERS, UNCONFIRMED, Announcer
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m

RECEIPT = m.Receipt(job="heart", update_id="mercy:0123abcd:1", outcome=m.Outcome.FOLDED)


def over(job: str) -> m.JobEnded:
    return m.JobEnded(job=job, state=m.JobState.FINISHED, reason="")


class Broker:
    """Takes what is published; of messages of the types that are `held` it confirms none."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.unsayable = ""
        self.published: list[str] = []
        self.waiting: list[str] = []
        self.came = asyncio.Event()

    async def sender(self) -> Callable[[Envelope, bool], Awaitable[None]]:
        return lambda envelope, mandatory: self.publish(envelope, mandatory=mandatory)

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None:
        if envelope.type in self.held:
            self.waiting.append(envelope.routing_key)
            self.came.set()
            await asyncio.Event().wait()
        if envelope.type == self.unsayable:
            raise RuntimeError("injected")
        self.published.append(f"{envelope.type} {envelope.routing_key}")
        self.came.set()

    async def holds(self, number: int) -> list[str]:
        """Keys of messages that are on their way and are not confirmed, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.waiting) < number:
                self.came.clear()
                await self.came.wait()
        return self.waiting

    async def has(self, number: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(self.published) < number:
                self.came.clear()
                await self.came.wait()
        return self.published


@asynccontextmanager
async def announcing(broker: Broker) -> AsyncIterator[Announcer]:
    announcer = Announcer(broker, post=Post(), dead=broker, keep=kept)  # type: ignore[arg-type]
    running = asyncio.create_task(announcer.run())
    try:
        yield announcer
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def kept(event: m.Event) -> None:
    pass


async def test_a_receipt_waits_behind_no_event() -> None:
    broker = Broker("event")
    async with announcing(broker) as announcer:
        for n in range(1000):
            await announcer.event("heart", events.VersionScored(site="evil", version=n))
        await announcer.tell("mercy", RECEIPT)
        assert await broker.has(1) == ["receipt site.mercy"]


async def test_a_receipt_waits_behind_no_answer() -> None:
    broker = Broker("job-ended")
    async with announcing(broker) as announcer:
        for n in range(1000):
            announcer.answer("evil", over(f"j{n}"))
        await announcer.tell("mercy", RECEIPT)
        assert await broker.has(1) == ["receipt site.mercy"]


async def test_a_site_that_asks_without_end_gets_so_many_answers_and_takes_none_of_anothers() -> None:
    broker = Broker()
    async with announcing(broker) as announcer:
        for n in range(10 * MOST_ANSWERS):
            announcer.answer("evil", over(f"j{n}"))
        announcer.answer("mercy", RECEIPT)
        said = await broker.has(MOST_ANSWERS + 1)
        assert said == ["job-ended site.evil"] * MOST_ANSWERS + ["receipt site.mercy"]
        # and it is answered again
        announcer.answer("evil", over("again"))
        await broker.has(MOST_ANSWERS + 2)


async def test_what_a_site_is_told_of_a_job_comes_in_order() -> None:
    broker = Broker()
    async with announcing(broker) as announcer:
        await announcer.tell("mercy", m.JobStarted(job="heart", session="s"))
        await announcer.tell("mercy", RECEIPT)
        await announcer.tell("mercy", over("heart"))
        await announcer.drained()
    assert [said.split()[0] for said in broker.published] == ["job-started", "receipt", "job-ended"]


async def test_the_end_of_a_job_waits_for_what_was_said_of_it_and_not_for_a_site_that_goes_on_and_on() -> None:
    broker = Broker("job-ended")
    async with announcing(broker) as announcer:
        talking = True

        async def talk() -> None:
            while talking:
                await announcer.event("lungs", events.TrainerTrouble(site="evil", error="again"))
                announcer.answer("evil", over("no-such-job"))
                await asyncio.sleep(0)

        talker = asyncio.create_task(talk())
        await announcer.tell("mercy", RECEIPT)
        async with asyncio.timeout(10):
            await announcer.drained()
        talking = False
        await talker
    assert "receipt site.mercy" in broker.published


async def test_a_message_that_cannot_be_said_does_not_silence_the_others() -> None:
    broker = Broker()
    broker.unsayable = "job-ended"
    async with announcing(broker) as announcer:
        await announcer.tell("mercy", over("heart"))
        await announcer.tell("mercy", RECEIPT)
        assert await broker.has(1) == ["receipt site.mercy"]


async def test_events_do_not_wait_for_each_others_confirm_up_to_a_window() -> None:
    broker = Broker("event")
    async with announcing(broker) as announcer:
        for n in range(2 * UNCONFIRMED):
            await announcer.event("heart", events.VersionScored(site=f"s{n}", version=n))
        on_their_way = await broker.holds(UNCONFIRMED)
        await settled()
        assert on_their_way == [f"heart.s{n}.{events.VersionScored.kind}" for n in range(UNCONFIRMED)]


async def test_sites_do_not_wait_for_each_other_and_one_site_has_one_message_on_its_way() -> None:
    broker = Broker("receipt")
    async with announcing(broker) as announcer:
        for site in ("mercy", "ucsf", "va", "mercy", "zurich"):
            await announcer.tell(site, RECEIPT)
        on_their_way = await broker.holds(3)
        await settled()
        assert on_their_way == ["site.mercy", "site.ucsf", "site.va"]


async def test_what_is_for_all_sites_waits_for_what_was_said_before_and_is_waited_for() -> None:
    broker = Broker("job-ended")
    async with announcing(broker) as announcer:
        await announcer.tell("mercy", RECEIPT)
        await announcer.tell(None, over("heart"))
        await announcer.tell("ucsf", RECEIPT)
        assert await broker.holds(1) == ["all"]
        await settled()
        assert broker.published == ["receipt site.mercy"]


async def settled() -> None:
    """Everything that can go on has gone on."""
    for _ in range(50):
        await asyncio.sleep(0)
