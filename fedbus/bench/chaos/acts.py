"""What each act does to processes, machines, links and messages, and how it heals.

The main thread plays: only it may start processes. Mischief runs backstage and is asked for its outcome at the end.
"""

from __future__ import annotations

import heapq
import itertools
import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import assert_never

from fedbus.bench.chaos import mischief
from fedbus.bench.chaos.evidence import receipts_in
from fedbus.bench.chaos.plan import AGGREGATOR, BROKER, Act, Deed, burden
from fedbus.bench.chaos.proxy import Backstage, Proxy
from fedbus.bench.chaos.stage import Stage
from fedbus.broker.process import ProcessId
from fedbus.bus.topology import models_stream
from fedbus.core.protocol.messages import Receipt
from fedbus.errors import FedbusError
from fedbus.local.federation import Daemon
from fedbus.store.state_reader import StateReader

SLOW_BYTES_PER_S = 200_000.0
CLOCK_OFF_S = 600.0
TICK_S = 0.1
WHOLE_S = 1.0
# Nodes that see each other again find out in a second that they are out of step.
NOTICED_S = 5.0
RECEIPTS = 20
MISCHIEF_LIMIT = timedelta(seconds=30)


@dataclass(slots=True, kw_only=True)
class Done:
    """A deed that was done `at` seconds since the epoch; `note` says what came of it when that is not plain."""

    deed: Deed
    at: float
    note: str = ""


class Player:
    """Plays a schedule on a stage, while the job `job` runs; `tell` is told of every deed."""

    def __init__(self, stage: Stage, backstage: Backstage, job: str, *, seed: int, tell: Callable[[str], None]) -> None:
        self._stage = stage
        self._backstage = backstage
        self._job = job
        self._seed = seed
        self._tell = tell
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._mischief: list[tuple[Done, Future[int]]] = []
        self.done: list[Done] = []

    def play(self, deeds: Sequence[Deed]) -> None:
        """Do every deed at its time, and return when all have healed."""
        for number, deed in enumerate(deeds):
            self._later(deed.at_s, partial(self._do, deed, number))
        while self._waiting:
            at, _, act = heapq.heappop(self._waiting)
            self.idle_until(at)
            act()
        self._settle_mischief()

    def idle_until(self, at: float) -> None:
        """Look after the daemons until then (monotonic seconds)."""
        while (left_s := at - time.monotonic()) > 0:
            self._stage.look_after()
            time.sleep(min(left_s, TICK_S))

    def _later(self, after_s: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + after_s, next(self._order), act))

    def _settle_mischief(self) -> None:
        for done, future in self._mischief:
            try:
                done.note = f"{future.result(MISCHIEF_LIMIT.total_seconds())} messages"
            except (FedbusError, TimeoutError) as exc:
                done.note = f"given up: {exc or 'no answer in time'}"

    # -------------------------------------------------------------- the acts

    def _do(self, deed: Deed, number: int) -> None:
        if not self._stage.broker_is_whole and burden(deed.act, deed.victim) == BROKER:
            # one node at a time: a busy machine takes longer to start one
            self._later(WHOLE_S, partial(self._do, deed, number))
            return
        done = Done(deed=deed, at=time.time())
        self.done.append(done)
        self._tell(str(deed))
        name, stage = deed.victim, self._stage
        match deed.act:
            case Act.KILL_SITE | Act.KILL_AGGREGATOR:
                stage.kill(name)
                self._later(deed.for_s, lambda: stage.start_again(name))
            case Act.KILL_BROKER:
                stage.kill_broker()
                self._later(deed.for_s, stage.start_broker)
            case Act.KILL_TRAINER | Act.FREEZE_TRAINER | Act.FREEZE_SITE | Act.FREEZE_AGGREGATOR:
                done.note = self._to_process(deed)
            case Act.CUT | Act.STALL | Act.VANISH | Act.REFUSE | Act.SLOW:
                self._to_link(deed)
            case Act.CLOCK_AHEAD | Act.CLOCK_BEHIND | Act.HANG_STORAGE | Act.FILL_LOG:
                self._to_machine(deed)
            case Act.KILL_NODE | Act.STOP_NODE | Act.FREEZE_NODE | Act.CUT_NODE | Act.SILENCE_NODE:
                stage.of_nodes.begin(deed.act, name)
                self._later(deed.for_s, lambda: stage.of_nodes.heal(deed.act, name))
                if deed.act in (Act.FREEZE_NODE, Act.SILENCE_NODE):
                    self._later(deed.for_s + NOTICED_S, self._mend_nodes)
            case Act.REPEAT_UPDATES | Act.REPEAT_VERSIONS | Act.REPEAT_RECEIPTS:
                self._repeat(done, random.Random(f"{self._seed}/{number}"))
            case _:
                assert_never(deed.act)

    def _mend_nodes(self) -> None:
        if not self._stage.of_nodes.mend():
            self._later(WHOLE_S, self._mend_nodes)

    def _to_process(self, deed: Deed) -> str:
        daemon = self._stage.daemon(deed.victim)
        if daemon is None:
            return "it is down"
        if deed.act in (Act.FREEZE_SITE, Act.FREEZE_AGGREGATOR):
            daemon.freeze()
            self._later(deed.for_s, daemon.thaw)
            return ""
        trainer = _trainer(daemon)
        if trainer is None:
            return "it has no trainer at the moment"
        if deed.act is Act.KILL_TRAINER:
            trainer.send(signal.SIGKILL)
        else:
            trainer.send(signal.SIGSTOP)
            self._later(deed.for_s, lambda: trainer.send(signal.SIGCONT))
        return ""

    def _to_link(self, deed: Deed) -> None:
        name, stage = deed.victim, self._stage
        match deed.act:
            case Act.CUT:
                stage.on_link(name, Proxy.cut)
            case Act.STALL:
                stage.on_link(name, Proxy.stall)
                self._later(deed.for_s, lambda: stage.on_link(name, Proxy.resume))
            case Act.VANISH:
                stage.on_link(name, Proxy.silence)
                self._later(deed.for_s, lambda: stage.on_link(name, _cut_and_resume))
            case Act.REFUSE:
                stage.on_link(name, Proxy.down)
                self._later(deed.for_s, lambda: stage.link_up(name))
            case Act.SLOW:
                stage.on_link(name, lambda link: link.slow(SLOW_BYTES_PER_S))
                self._later(deed.for_s, lambda: stage.on_link(name, lambda link: link.slow(None)))

    def _to_machine(self, deed: Deed) -> None:
        machine = self._stage.machine(deed.victim)
        match deed.act:
            case Act.CLOCK_AHEAD | Act.CLOCK_BEHIND:
                machine.clock_ahead_s = CLOCK_OFF_S if deed.act is Act.CLOCK_AHEAD else -CLOCK_OFF_S
                self._later(deed.for_s, lambda: setattr(machine, "clock_ahead_s", 0.0))
            case Act.HANG_STORAGE:
                machine.storage_hangs = True
                self._later(deed.for_s, lambda: setattr(machine, "storage_hangs", False))
            case Act.FILL_LOG:
                machine.log_is_full = True
                self._later(deed.for_s, lambda: setattr(machine, "log_is_full", False))

    def _repeat(self, done: Done, rng: random.Random) -> None:
        federation, name = self._stage.federation, done.deed.victim
        seal_keys = federation.state_dir(AGGREGATOR) / "seal.key"
        login = mischief.Login(url=federation.url(name), kit=federation.kit(name), seal_keys=seal_keys)
        match done.deed.act:
            case Act.REPEAT_UPDATES:
                outbox = federation.folder / "sites" / name / "jobs" / self._job / "outbox"
                work = mischief.repeat_updates(login, outbox, self._job, name, rng=rng)
            case Act.REPEAT_VERSIONS:
                work = mischief.repeat_versions(login, self._job, self._stream(), rng=rng)
            case _:
                logs = [d for d in federation.daemons if d.name == AGGREGATOR]
                work = mischief.repeat_receipts(login, _some(receipts_in(logs, self._job), rng), rng=rng)
        self._mischief.append((done, self._backstage.begin(work)))

    def _stream(self) -> str:
        """The name of the model log, as the aggregator's ledger has it."""
        with StateReader(self._stage.federation.folder / AGGREGATOR) as state:
            return state.ledger.model_log(self._job) or models_stream(self._job)


def _some(receipts: list[Receipt], rng: random.Random) -> list[Receipt]:
    return rng.sample(receipts, min(RECEIPTS, len(receipts)))


def _trainer(daemon: Daemon) -> ProcessId | None:
    return next(iter(daemon.trainers()), None)


def _cut_and_resume(link: Proxy) -> None:
    link.cut()
    link.resume()
