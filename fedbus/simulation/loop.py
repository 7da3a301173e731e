"""A job in virtual time: the same rules, tensors, codes and tasks as on the bus, with no broker and no waiting.

What lives here: what happens when, as a heap of events. What may not: how an update is weighed or trained.

    site comes     it is active; it sends what it had finished meanwhile, or takes the newest version and trains
    update comes   decided, folded → a version when one is due → the site takes the newest version and trains again
    site goes      it is not waited for; a training goes on and its update is sent when the site is back
    site leaves    for good: its update is lost

A site has one update in flight, as by default on the bus, and with a strategy that waits it trains from each version
once. One whose update makes a version goes on from that version; on the bus its receipt may be there a little before.
Training is computed at the moment it begins, from the params of that moment, and its update comes in `delay` (drawn
from the site's own generator) plus twice the latency: nothing depends on how fast this machine is. Events at the same
time happen in the order in which they were foreseen. Same arguments, same result, to the bit.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from torch import Tensor

from fedbus.core.job.duties import Standing, Train, next_duty
from fedbus.core.job.training import TrainingJob
from fedbus.core.protocol.messages import JobState, UpdateId
from fedbus.core.rules.facts import Folded, Refused
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import SettingsError, TaskError
from fedbus.simulation.result import Point, Result, SiteReport, staleness_figures
from fedbus.simulation.rules import Foreign, ForeignRule, Production, Server
from fedbus.simulation.sites import SimulatedSite
from fedbus.simulation.trainer import Trained, Trainer, Transform, site_generator

INCARNATION = "00000000"

OnProgress = Callable[[Point], None]


@dataclass(slots=True, kw_only=True)
class _State:
    """One site during the run; `finished` waits for the site to be back, `held` is the version it has."""

    site: SimulatedSite
    rng: random.Random
    changes: Iterator[tuple[float, bool]]
    there: bool = False
    gone: bool = False
    in_flight: bool = False
    finished: Trained | None = None
    base: Tensor | None = None
    held: int | None = None
    scored: int = -1
    trainings: int = 0
    refused: int = 0
    clipped: int = 0
    lost: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    staleness: list[int] = field(default_factory=list)


class Simulation:
    """One job with its sites; run it once.

    `seed` stands for the job's own and decides everything random. `scorers` are the sites whose tests make the curve's
    metrics (None: all). `rule` takes the place of the production aggregation. `latency_s` is one way. `initial`: the
    first params, float32 [numel], such as another run's `final_params`; None: the first site's task makes them.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        sites: Sequence[SimulatedSite],
        *,
        seed: int,
        evaluate_every_s: float = 1.0,
        scorers: Collection[str] | None = None,
        on_progress: OnProgress = lambda point: None,
        rule: ForeignRule | None = None,
        transform: Transform | None = None,
        latency_s: float = 0.0,
        initial: Tensor | None = None,
    ) -> None:
        if not sites or not (evaluate_every_s > 0 and latency_s >= 0):
            raise SettingsError("expected at least one site, evaluate_every_s > 0 and latency_s >= 0")
        self._spec = spec.model_copy(update={"seed": seed})
        self._trainer = Trainer(self._spec, sites[0].task, transform=transform)
        for site in sites[1:]:
            self._trainer.check_fits(site.task, site.name)
        layout = self._trainer.layout
        initial = self._trainer.initial if initial is None else initial
        self._server: Server = (
            Production(self._spec, layout, initial) if rule is None else Foreign(rule, layout, initial)
        )
        self._states = [self._state(site, seed) for site in sites]
        self._life = TrainingJob(self._spec)
        self._scorers = [s for s in sites if scorers is None or s.name in scorers]
        self._every_s = evaluate_every_s
        self._on_progress = on_progress
        self._latency_s = latency_s
        self._now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._down_bytes = [0]
        self._points: list[Point] = []
        self._reason: str | None = None

    @staticmethod
    def _state(site: SimulatedSite, seed: int) -> _State:
        rng = site_generator(seed, site.name)
        # presence has a generator of its own: when a site is away does not depend on how often it trains
        return _State(site=site, rng=rng, changes=site.presence.changes(random.Random(rng.random())))

    def run(self, *, until_s: float = math.inf) -> Result:
        """Run until a stop rule of the job, `until_s` virtual seconds, or until no site will ever send again."""
        self._life.offered(now=0.0)
        for state in self._states:
            self._foresee_change(state)
        try:
            while self._reason is None:
                self._step(until_s)
        except TaskError as exc:
            self._reason = str(exc)
        if not self._points or self._points[-1].t < self._now:
            self._evaluate()
        return self._result(self._reason)

    # -------------------------------------------------------------- time

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (time, next(self._order), event))

    def _step(self, until_s: float) -> None:
        """Go to the next moment at which something happens, and let it happen."""
        next_event = self._heap[0][0] if self._heap else math.inf
        by_clock = [self._server.next_due_at(now=self._now), self._life.wall_time_ends_at()]
        moment = min([next_event, *(t for t in by_clock if t is not None)])
        evaluation = len(self._points) * self._every_s
        if moment == until_s == math.inf:
            self._reason = "no site will send anything any more"
        elif evaluation < min(moment, until_s):
            self._now = evaluation
            self._evaluate()
        elif moment > until_s:
            self._now, self._reason = float(until_s), f"{until_s:g} virtual seconds are over"
        else:
            self._now = max(self._now, moment)
            if next_event <= self._now:
                _, _, event = heapq.heappop(self._heap)
                event()
            self._commit_if_due()
            self._look_whether_over()

    def _look_whether_over(self) -> None:
        if self._life.state is JobState.RUNNING and self._reason is None:
            self._reason = self._life.stop_reason(
                version=self._server.version, updates=self._server.updates, now=self._now
            )

    # -------------------------------------------------------------- sites come and go

    def _foresee_change(self, state: _State) -> None:
        change = next(state.changes, None)
        state.gone = change is None
        if change is not None and change[0] < math.inf:
            self._at(change[0], partial(self._change, state, there=change[1]))

    def _change(self, state: _State, *, there: bool) -> None:
        state.there = there
        self._foresee_change(state)
        if there:
            self._life.accepted(state.site.name)
        active = frozenset(s.site.name for s in self._states if s.there)
        self._server.set_active(active, now=self._now)
        self._life.set_active(active)
        if self._life.can_start(active):
            self._life.started(now=self._now)
            self._server.begin(now=self._now)
            self._begin_all()
        elif there and state.finished is not None:
            update, state.finished = state.finished, None
            self._deliver(state, update)
        elif there:
            self._begin(state)

    # -------------------------------------------------------------- updates and versions

    def _begin_all(self) -> None:
        for state in self._states:
            self._begin(state)

    def _begin(self, state: _State) -> None:
        """Take the newest version and train, unless the site is busy, away, or has trained from that one already."""
        version = self._server.version
        standing = Standing(
            held=version,
            stopping=self._life.state is not JobState.RUNNING or self._reason is not None or not state.there,
            trained_from=state.held if state.held is not None and state.trainings else -1,
            waits_for_new=self._server.wait_for_new_version,
            unsettled=int(state.in_flight),
        )
        if next_duty(standing) != Train():
            return
        self._download(state, version)
        self._score(state, version)
        update_id = UpdateId(site=state.site.name, incarnation=INCARNATION, sequence=state.trainings + 1)
        base = self._server.params
        trained = self._trainer.train(
            state.site.task,
            update_id,
            base,
            base_version=version,
            delay_s=state.site.delay(state.rng),
            steps=self._server.steps(state.site.name),
        )
        state.trainings += 1
        state.in_flight = True
        state.base = base.clone() if self._server.needs_base else None
        self._at(self._now + trained.effort.seconds + 2 * self._latency_s, partial(self._arrive, state, trained))

    def _download(self, state: _State, version: int) -> None:
        """Count the deltas that the site lacks, or a snapshot where that is less."""
        if state.held == version:
            return
        if state.held is None:
            state.bytes_down += self._server.snapshot_bytes
        else:
            deltas = self._down_bytes[version] - self._down_bytes[state.held]
            alone = version == state.held + 1
            state.bytes_down += deltas if alone else min(deltas, self._server.snapshot_bytes)
        state.held = version

    def _score(self, state: _State, version: int) -> None:
        """As on the bus: a site scores what it is about to train from; stop rules look at these scores."""
        if not self._spec.local.evaluate or version <= state.scored:
            return
        state.scored = version
        scores = self._trainer.score(state.site.task, self._server.params, site=state.site.name)
        self._life.scored(
            version=version, site=state.site.name, metrics=scores.metrics, num_examples=scores.num_examples
        )

    def _arrive(self, state: _State, update: Trained) -> None:
        if state.gone:
            state.lost += 1
        elif not state.there:
            state.finished = update
        else:
            self._deliver(state, update)

    def _deliver(self, state: _State, update: Trained) -> None:
        state.bytes_up += update.body_bytes
        staleness = self._server.version - update.base_version
        verdict = self._server.take(update, base=state.base, now=self._now)
        self._trainer.decided(update.update_id, refused=isinstance(verdict, Refused))
        if isinstance(verdict, Refused):
            state.refused += 1
        else:
            state.staleness.append(staleness)
            state.clipped += isinstance(verdict, Folded) and verdict.clip < 1.0
        state.in_flight = False
        self._commit_if_due()
        self._look_whether_over()
        self._begin(state)

    def _commit_if_due(self) -> None:
        sent_bytes = self._server.commit_if_due(now=self._now)
        if sent_bytes is not None:
            self._down_bytes.append(self._down_bytes[-1] + sent_bytes)
            self._look_whether_over()
            self._begin_all()

    # -------------------------------------------------------------- what is seen of it

    def _evaluate(self) -> None:
        """Score what sites hold now; the metrics of a version that was scored before are taken over."""
        last = self._points[-1] if self._points else None
        same = last is not None and last.version == self._server.version
        point = Point(
            t=self._now,
            version=self._server.version,
            updates=self._server.updates,
            bytes_up=sum(state.bytes_up for state in self._states),
            bytes_down=sum(state.bytes_down for state in self._states),
            metrics=last.metrics if last is not None and same else self._measure(),
        )
        self._points.append(point)
        self._on_progress(point)

    def _measure(self) -> dict[str, float]:
        """The scorers' metrics, each the mean over those that have it, weighted by examples."""
        found = [self._trainer.score(site.task, self._server.params, site=site.name) for site in self._scorers]
        means = {}
        for name in sorted({name for scores in found for name in scores.metrics}):
            having = [scores for scores in found if name in scores.metrics]
            total = sum(scores.num_examples for scores in having)
            means[name] = math.fsum(s.metrics[name] * s.num_examples for s in having) / total if total else math.nan
        return means

    def _result(self, reason: str | None) -> Result:
        everything = [s for state in self._states for s in state.staleness]
        return Result(
            points=tuple(self._points),
            sites={state.site.name: _report(state) for state in self._states},
            staleness=staleness_figures(everything),
            version=self._server.version,
            updates=self._server.updates,
            refused=sum(state.refused for state in self._states),
            clipped=sum(state.clipped for state in self._states),
            bytes_up=sum(state.bytes_up for state in self._states),
            bytes_down=sum(state.bytes_down for state in self._states),
            ended_at=self._now,
            reason=reason or "",
            rule=self._server.chosen,
            final_params=self._server.params.clone(),
        )


def _report(state: _State) -> SiteReport:
    return SiteReport(
        trainings=state.trainings,
        folded=len(state.staleness),
        refused=state.refused,
        clipped=state.clipped,
        lost=state.lost,
        mean_staleness=sum(state.staleness) / len(state.staleness) if state.staleness else 0.0,
        bytes_up=state.bytes_up,
        bytes_down=state.bytes_down,
    )
