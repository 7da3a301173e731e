"""One attack on a running job: abuses and copies of one update, good updates of another site meanwhile; the counts.

Every abuse must end as its case says, every good update must be folded, and the aggregator must be the process that it
was and not have grown.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from fedbus.bench.abuse.cases import Abuser, Case, End, frames, manifest_of
from fedbus.bench.abuse.logins import Dead, Site, dead_letters, site
from fedbus.bench.figures import peak_bytes, resident_bytes
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.declare import ready_messages
from fedbus.bus.envelope import Envelope
from fedbus.bus.publisher import Publisher
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.errors import FedbusError, UnroutableError
from fedbus.store.ledger import DECIDED, Ledger
from fedbus.store.state_reader import LedgerReader

WINDOW = 64
LOOK_S = 0.05
TRAINS_S = 0.05
STALLED = timedelta(seconds=60)
QUIET = timedelta(seconds=5)
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The job that is attacked. `ledger` is the file of the aggregator `pid`; `url` gives the broker's URLs.

    `other_job` is one that the attacker takes no part in.
    """

    job: str
    other_job: str
    url: Callable[[str], str]
    ledger: Path
    pid: int


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of an attack; times in seconds, memory in bytes."""

    sent: Counter[End] = field(default_factory=Counter)
    unaccounted: list[str] = field(default_factory=list)
    let_go: int = 0
    """Abuses that should lie in `fedbus.dead` and do not: the aggregator's log must have counted them."""
    dropped: int = 0
    refused_unfinished: int = 0
    awaited: int = 0
    abuses_measured: int = 0
    abuse_s: float = 0.0
    good: int = 0
    not_folded: list[str] = field(default_factory=list)
    receipt_s: list[float] = field(default_factory=list)
    duplicates: int = 0
    duplicates_s: float = 0.0
    returned: int = 0
    """Messages that the broker did not take: the attacker was held off, or takes no part in their job."""
    receipts_repeated: int = 0
    resident_before: float = 0.0
    resident_after: float = 0.0
    peak_before: float = 0.0
    peak_after: float = 0.0


async def attack(target: Target, *, abuser: str, good: str, abuses: int, duplicates: int, seed: int) -> Outcome:
    """Attack under login `abuser`, work under login `good`; FedbusError when nothing moves for STALLED."""
    with LedgerReader(target.ledger) as ledger:
        async with AsyncExitStack() as stack:
            bad = await stack.enter_async_context(site(abuser, target.url(abuser)))
            fine = await stack.enter_async_context(site(good, target.url(good)))
            dead = await stack.enter_async_context(dead_letters(target.url("aggregator")))
            for login in (bad, fine):
                await login.take_part(target.job)
            made = Attack(target, bad=bad, fine=fine, dead=dead, ledger=ledger, seed=seed)
            return await made.run(abuses, duplicates)


class Attacker(Publisher):
    """Publishes on, whatever the broker returns; with `insists(envelope)` until it takes the message."""

    def __init__(self, session: Session, insists: Callable[[Envelope], bool]) -> None:
        super().__init__(session, routes_return=timedelta(0))
        self._insists = insists
        self.returned = 0

    async def publish(self, envelope: Envelope, *, mandatory: bool = True) -> None:
        while True:
            try:
                return await super().publish(envelope, mandatory=mandatory)
            except UnroutableError:
                self.returned += 1
                if not self._insists(envelope):
                    return None
            await asyncio.sleep(LOOK_S)


class Attack:
    """State of one attack."""

    def __init__(self, target: Target, *, bad: Site, fine: Site, dead: Dead, ledger: Ledger, seed: int) -> None:
        self._target = target
        self._bad = bad
        self._fine = fine
        self._dead = dead
        self._ledger = ledger
        row = next(row for row in ledger.jobs() if row.job == target.job)
        self._layout = Layout.from_dict(row.layout or {})
        self._cases = Abuser(
            target.job,
            self._layout,
            site=bad,
            other=fine.name,
            other_job=target.other_job,
            chunk_bytes=CHUNK_BYTES,
            seed=seed,
        )
        self._sent: dict[str, Case] = {}
        self._over = asyncio.Event()
        self.outcome = Outcome()

    async def run(self, abuses: int, duplicates: int) -> Outcome:
        outcome = self.outcome
        warm = min(abuses, len(self._cases.kinds) + abuses // 10)
        async with asyncio.TaskGroup() as group:
            staying = group.create_task(self._fine.stay(self._target.job), name="good site stays")
            group.create_task(self._work(), name="good updates")
            await self._abuse(warm)
            outcome.resident_before, outcome.peak_before = self._memory()
            began = time.monotonic()
            await self._abuse(abuses - warm)
            outcome.abuses_measured, outcome.abuse_s = abuses - warm, time.monotonic() - began
            began = time.monotonic()
            await self._repeat(duplicates)
            outcome.duplicates_s = time.monotonic() - began
            self._over.set()
            staying.cancel()
        outcome.resident_after, outcome.peak_after = self._memory()
        self._count()
        return outcome

    def _memory(self) -> tuple[float, float]:
        return resident_bytes(self._target.pid), peak_bytes(self._target.pid)

    # -------------------------------------------------------------- what is sent

    async def _work(self) -> None:
        """One good update after another: the receipt of the one before has come, and a short training is over."""
        while not self._over.is_set():
            update_id = f"{self._fine.name}:0600d000:{self.outcome.good}"
            self.outcome.good += 1
            began = time.monotonic()
            await self._fine.publisher.publish_many(self._good_update(update_id, self._fine, seed=self.outcome.good))
            receipt = await self._fine.receipt(update_id)
            self.outcome.receipt_s.append(time.monotonic() - began)
            if receipt.outcome is not m.Outcome.FOLDED:
                self.outcome.not_folded.append(f"{update_id}: {receipt.reason}")
            await asyncio.sleep(TRAINS_S)

    def _good_update(self, update_id: str, by: Site, *, seed: int) -> Iterator[Envelope]:
        job, bodies = self._target.job, frames(self._layout, seed=seed)
        for index, body in enumerate(bodies):
            chunk = m.Chunk(job=job, transfer=update_id, part="update", index=index, count=len(bodies), body=body)
            yield by.post.from_trainer(chunk, site=by.name)
        yield by.post.from_trainer(manifest_of(job, update_id, self._layout, bodies), site=by.name)

    async def _abuse(self, number: int) -> None:
        async def envelopes() -> AsyncIterator[Envelope]:
            for _ in range(number):
                case = self._cases.draw()
                self._sent[case.ident] = case
                self.outcome.sent[case.end] += 1
                for envelope in case.envelopes:
                    yield envelope

        others = t.update_key(self._target.other_job, self._bad.name)
        attacker = Attacker(self._bad.session, lambda envelope: envelope.routing_key != others)
        await attacker.publish_many(envelopes(), window=WINDOW)
        self.outcome.returned += attacker.returned
        await self._until(lambda: not self._open(), "abuses are neither dead nor refused")
        await self._until_let_go()

    async def _repeat(self, number: int) -> None:
        """The manifest and the chunks of one update of the attacker that was decided, again and again."""
        update_id = f"{self._bad.name}:0600d000:0"
        update = list(self._good_update(update_id, self._bad, seed=1))
        await Attacker(self._bad.session, lambda envelope: True).publish_many(update)
        await self._bad.receipt(update_id)
        # aiormq tells returned messages apart by their ids
        again = (dataclasses.replace(update[n % len(update)], message_id=f"copy-{n}") for n in range(number))
        before = self._bad.repeated
        attacker = Attacker(self._bad.session, lambda envelope: False)
        await attacker.publish_many(again, window=WINDOW)
        self.outcome.returned += attacker.returned
        queue = t.updates_queue(self._target.job)
        while await ready_messages(self._fine.session, queue):  # noqa: ASYNC110 the broker tells only when asked
            await asyncio.sleep(LOOK_S)
        self.outcome.duplicates = number
        self.outcome.receipts_repeated = self._bad.repeated - before

    # -------------------------------------------------------------- what came of it

    def _open(self) -> list[Case]:
        """Abuses that have not ended as they must."""
        self._sent = {ident: case for ident, case in self._sent.items() if not self._ended(case)}
        return [case for case in self._sent.values() if case.end not in (End.UNFINISHED, End.DEAD)]

    def _ended(self, case: Case) -> bool:
        match case.end:
            case End.DEAD:
                return bool(self._dead.reasons.get(case.ident))
            case End.REFUSED:
                receipt = self._bad.receipts.get(case.ident)
                return receipt is not None and receipt.outcome is m.Outcome.REFUSED and bool(receipt.reason)
            case End.DECIDED:
                return bool(self._dead.reasons.get(case.ident)) or case.ident in self._bad.receipts
            case End.TAKEN:
                return True
            case End.UNFINISHED:
                return False

    async def _until_let_go(self) -> None:
        """Wait for what should be dead until no more comes: of a flood the aggregator keeps only so much."""
        seen, since = -1, time.monotonic()
        while self._dead_awaited() and time.monotonic() - since < QUIET.total_seconds():
            await asyncio.sleep(LOOK_S)
            if len(self._dead.reasons) != seen:
                seen, since = len(self._dead.reasons), time.monotonic()
        for case in self._dead_awaited():
            del self._sent[case.ident]
            self.outcome.let_go += 1

    def _dead_awaited(self) -> list[Case]:
        self._open()
        return [case for case in self._sent.values() if case.end is End.DEAD]

    async def _until(self, done: Callable[[], bool], what: str) -> None:
        """Wait until it is so; FedbusError when nothing has moved for STALLED."""
        moved, seen = time.monotonic(), -1
        while not done():
            now, heard = time.monotonic(), len(self._dead.reasons) + len(self._bad.receipts)
            moved, seen = (now, heard) if heard != seen else (moved, seen)
            if now - moved > STALLED.total_seconds():
                kinds = Counter(case.what for case in self._open())
                raise FedbusError(f"{what}: {dict(kinds)}")
            await asyncio.sleep(LOOK_S)

    def _count(self) -> None:
        """What was begun and not finished: dropped, refused, or one of the few that are still awaited."""
        states = self._ledger.update_states(self._target.job)
        for ident, case in self._sent.items():
            state = states.get(ident)
            if case.end is End.UNFINISHED and state is None:
                self.outcome.dropped += 1
            elif case.end is not End.UNFINISHED:
                self.outcome.unaccounted.append(f"{case.what}: {ident}")
            elif state == DECIDED:
                self.outcome.refused_unfinished += 1
            else:
                self.outcome.awaited += 1
