"""The life of one job at the aggregator: offer, start, stop, scores, result.

`serve` is one loop: whatever comes (a complete update, an answer, a lost site, a clock) it takes what came and then
looks at what is due. Updates and versions are `Folding`'s; states and stop rules `core.Job`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from fedbus.aggregator.incoming.complete import Complete, Item, Unwanted
from fedbus.aggregator.incoming.entrance import Entrance
from fedbus.aggregator.incoming.uploads import Receiving
from fedbus.aggregator.job.checkpointing import Checkpointing
from fedbus.aggregator.job.folding import Folding
from fedbus.aggregator.job.initial_params import InitialParams
from fedbus.aggregator.job.pacing import Pacing
from fedbus.aggregator.job.prospects import Prospects
from fedbus.aggregator.job.resyncs import Resyncs
from fedbus.aggregator.job.scoring import Scoring
from fedbus.aggregator.job.verdicts import refuse
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.aggregator.model.log import ModelLogWriter
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.trouble import first_of
from fedbus.core.job.agreement import Agreement, Layouts
from fedbus.core.job.life import Job
from fedbus.core.job.status_text import span
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Refused
from fedbus.core.spec.jobspec import JobSpec
from fedbus.core.words import counted
from fedbus.runtime.faults import Point
from fedbus.store.ledger import JobRow
from fedbus.store.ledger_schema import ANYBODY

LOOK_AGAIN_S = 1.0
# After a restart the sites answer the roll call first: a job that was about to end would end without their scores.
SITES_RETURN = timedelta(seconds=5)

# Opening a task takes seconds, loading its data perhaps minutes. Sites of an older release never say their layout:
# where none has said one, the job waits for less.
LAYOUTS_WAIT = timedelta(minutes=2)
FIRST_LAYOUT_WAIT = timedelta(seconds=20)

# Receipts wait for the last of the updates that are decided together.
MOST_TOGETHER = timedelta(seconds=0.1)

OpenLog = Callable[[JobSpec, str, Layout], Awaitable[ModelLogWriter]]


class JobRunner:
    """State of one job. `open_log` declares the job's model log and returns its writer; `entrance` lets sites in."""

    def __init__(
        self,
        row: JobRow,
        *,
        keeper: ModelKeeper,
        tools: Tools,
        open_log: OpenLog,
        entrance: Entrance,
        sites_return: timedelta = SITES_RETURN,
        layouts_wait: timedelta = LAYOUTS_WAIT,
    ) -> None:
        self.row = row
        self.job = row.job
        self.spec = JobSpec.parse(row.spec)
        self.life = Job(self.spec)
        self.life.offered(now=time.monotonic())  # a site that joins while the job is being opened may answer at once
        self.aggregation = Aggregation(self.spec, now=time.monotonic())
        self.complete = Complete()
        self.entrance = entrance
        self.receiving: Callable[[], tuple[Receiving, ...]] = tuple
        """Uploads under way, as the intake sees them."""
        self._keeper = keeper
        self._tools = tools
        self._open_log = open_log
        self._pacing = Pacing(self.job, self.spec, tools.announcer)
        self._folding: Folding | None = None
        self._stream = ""
        self._initial = InitialParams(
            self.job, self.spec, life=self.life, keeper=keeper, tools=tools, adopted=self._adopted
        )
        self._participants: set[str] = set()
        self._broken: Exception | None = None
        self._resyncs = Resyncs()
        self._checkpoints = Checkpointing(keeper, tools=tools)
        self._scoring = Scoring(self.job, life=self.life, aggregation=self.aggregation, keeper=keeper, tools=tools)
        self._prospects = Prospects(
            self.job, life=self.life, tools=tools, submitted_at=row.submitted_at, waits_for=self.waits_to_start_for
        )
        self.aborting: str | None = None
        """Why a person ends the job; None when nobody does."""
        self.failing: str | None = None
        """Why the aggregator gives the job up; None while it does not."""
        self.over: str | None = None
        """The stop rule that a running job has reached; None before."""
        self._sites_return_s = sites_return.total_seconds()
        self._layouts = Layouts(wait_s=layouts_wait.total_seconds(), first_wait_s=FIRST_LAYOUT_WAIT.total_seconds())
        self._told_differences = ""
        self.opened = False
        """Whether the job was taken up where the ledger says it is."""
        self._was_at: int | None = None
        self._finish_from = 0.0
        self._scores_until = 0.0
        self._written_at = 0.0
        self._pause_told = False

    # -------------------------------------------------------------- what the daemon tells

    def sites_changed(self) -> None:
        """Sites came, went, accepted or declined."""
        active = self.active()
        self.aggregation.set_active(active, now=time.monotonic())
        self.life.set_active(active)
        self._nudge()

    def site_started_anew(self, site: str) -> None:
        """A site has forgotten what it was asked; its task may be another one now."""
        self._layouts.forget(site)
        self._initial.site_started_anew(site)

    def active(self) -> frozenset[str]:
        """Sites that have accepted and are online."""
        return self.life.accepted_sites & self._tools.membership.online(now=time.monotonic())

    async def on_answer(self, answer: m.OfferAnswer) -> None:
        """A site accepts or declines."""
        known = answer.site in self.life.accepted_sites
        if answer.layout:
            self._layouts.said(answer.site, answer.layout)
        if not answer.accepted:
            before = self.life.declined_sites.get(answer.site)
            if self.life.declined(answer.site, answer.reason) and before != answer.reason:
                text = f"{answer.site} declined: {answer.reason}"
                await self._event(events.SITE_DECLINED, text, site=answer.site)
        elif self.life.accepted(answer.site) or known:
            if not known:
                await self._enrol(answer.site)
                await self._event(events.SITE_ACCEPTED, f"{answer.site} takes part", site=answer.site)
            await self.welcome(answer.site)
        self.sites_changed()

    async def _enrol(self, site: str) -> None:
        """Durable before the site is told to begin: what it sends must count after any restart."""
        if site not in self._participants:
            await self._tools.store(self._tools.ledger.add_participant, self.job, site, at=time.time())
            self._participants.add(site)
        await self.entrance.open({site})

    def takes_part(self, site: str) -> bool:
        """Whether the site has ever accepted the job, so that its updates are looked at."""
        return site in self._participants or ANYBODY in self._participants

    async def welcome(self, site: str) -> None:
        """Tell a site that the model log is there to follow, if it is; ask again for a score that it owes."""
        if self.life.state in (m.JobState.RUNNING, m.JobState.FINISHING):
            await self._tools.announcer.tell(site, self._started())
            await self._pacing.remind(site)
        for version, owing in self.life.missing_scores():
            if owing == site:  # it was started anew since it was asked
                await self._tools.announcer.tell(site, m.ScoreRequest(job=self.job, version=version))

    def _started(self) -> m.JobStarted:
        return m.JobStarted(job=self.job, session=self._tools.session, log=self._stream)

    async def on_score(self, score: m.ScoreAnswer) -> None:
        """A site scored a version, or could not."""
        await self._scoring.take(score)
        self._nudge()

    async def on_resync(self, request: m.ResyncRequest) -> None:
        """A site of the job cannot follow the model log: soon the newest version comes as a snapshot, for all."""
        if request.site not in self.active():
            return
        if self._resyncs.ask(request.site, now=time.monotonic()):
            text = f"{request.site} asks for a snapshot: {request.reason}"
            await self._event(events.SITE_RESYNC, text, site=request.site)
        for site, times in self._resyncs.to_tell(now=time.monotonic()).items():
            text = f"{site} asks for snapshots again and again: {counted(times, 'request')} not met"
            await self._event(events.SITE_LIMITED, text, site=site)
        self._nudge()

    async def on_trouble(self, trouble: m.TrainerTrouble) -> None:
        """A trainer of a site of the job died; the site tries again, or gives the job up."""
        if not self.takes_part(trouble.site):
            return
        text = f"{trouble.site}: {trouble.error}" + ("; the site gives up" if trouble.fatal else "; it tries again")
        await self._event(
            events.TRAINER_TROUBLE, text, site=trouble.site, restarts=trouble.restarts, fatal=trouble.fatal
        )
        if trouble.fatal:
            self.life.declined(trouble.site, trouble.error)
            self.site_started_anew(trouble.site)  # if it comes back, then without what it was asked
        self.sites_changed()

    def broke(self, exc: Exception) -> None:
        """Something that was told to the job from outside went wrong in it: its own task is to end with that."""
        self._broken = exc
        self._nudge()

    def abort(self, reason: str) -> None:
        """A person ends the job."""
        self.aborting = reason
        self._nudge()

    @property
    def layout(self) -> Layout | None:
        """Layout of the job's params; None before there are any."""
        return None if self._folding is None else self._folding.layout

    @property
    def version(self) -> int | None:
        """The newest version; while the job is taken up after a restart, the one published last; None: unknown."""
        if self.opened or self.row.started_at is None:
            return self.aggregation.version
        return self._was_at

    @property
    def progress(self) -> tuple[m.JobState, int, int]:
        """Changes whenever the job moves."""
        return self.life.state, self.aggregation.version, self.aggregation.updates

    @property
    def paused(self) -> str | None:
        """Why nothing is taken at the moment: the disk is full."""
        return self._tools.disk.full

    @property
    def waits_for_sites(self) -> bool:
        """Whether the job runs and nothing is decided, for too few of its sites are there: what comes waits."""
        running = self.life.state is m.JobState.RUNNING and self.over is None
        return running and bool(self.aggregation.too_few)

    @property
    def waits_in_vain(self) -> str:
        """What the job waits for and may never get; empty when nothing is."""
        return self._prospects.says if self.over is None else ""

    @property
    def nobody_left(self) -> str:
        """Why the job will fail unless a site comes; empty while enough are left."""
        return self._prospects.nobody_left if self.over is None else ""

    def _nudge(self) -> None:
        self.complete.put_nowait(None)

    # -------------------------------------------------------------- open and serve

    async def open(self) -> None:
        """Take the job up where the ledger says it is."""
        await self._take_up()
        self.opened = True

    async def _take_up(self) -> None:
        now = time.monotonic()
        self._participants |= await self._tools.store(self._tools.ledger.participants, self.job)
        self._written_at = await self._tools.store(self._tools.ledger.last_sign_of_life, self.job)
        self._was_at = await self._tools.store(self._tools.ledger.last_published, self.job)
        for site in self._participants - {ANYBODY}:
            self.life.took_part(site)
        await self._scoring.restore()
        if self.row.layout is not None:
            self._folding = await self._make_folding(Layout.from_dict(self.row.layout))
            await self._folding.restore()
        if self.row.started_at is None:
            return await self._set_state(m.JobState.WAITING)
        # what it has run already is no less than what its own clock said, should this one be behind
        ran_s = max(time.time(), self._written_at) - self.row.started_at
        self.life.started(now=now - max(0.0, ran_s))
        self.over = self.row.reason if self.row.state == m.JobState.FINISHING else None
        self._finish_from = time.monotonic() + self._sites_return_s
        return await self._event(events.JOB_CONTINUES, await self._continues())

    async def _continues(self) -> str:
        """What the restart cost, in words."""
        away_s = max(0.0, time.time() - self._written_at)
        text = f"continues at version {self.aggregation.version} after {span(away_s)} without an aggregator"
        redone = self._folding.redone if self._folding is not None else ""
        return f"{text}; {redone}" if redone else text

    async def serve(self) -> None:
        """Work until the job has ended and its last checkpoint is written."""
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._checkpoints.run(), name=f"job {self.job} checkpoints")
                await self._serve()
                await self._checkpoints.written()
                writing.cancel()
        except BaseExceptionGroup as failures:
            raise first_of(failures) from None

    async def _serve(self) -> None:
        await self._step()
        while not self.life.state.ended:
            item = await self._next()
            if isinstance(item, Unwanted):
                await self._refuse(item.manifest, item.reason)
            elif item is not None:
                await self._take(item)
            await self._step()

    async def _next(self) -> Item:
        """The next complete update; None after a nudge, or when the clock makes something due."""
        now = time.monotonic()
        # nothing is committed while nobody is there, so a buffer that is due does not count
        commit_at = self.aggregation.next_due_at(now=now) if self.aggregation.active else None
        due = [t for t in (commit_at, self.life.wall_time_ends_at()) if t is not None]
        wait_s = min([LOOK_AGAIN_S, *(max(0.01, t - now) for t in due)])
        try:
            async with asyncio.timeout(wait_s):
                return await (self.complete.get_but_deltas() if self.waits_for_sites else self.complete.get())
        except TimeoutError:
            return None

    async def _take(self, manifest: m.UpdateManifest) -> None:
        if manifest.kind == "initial":
            agreed = self._layouts.agreement(self.active(), now=time.monotonic())
            if not await self._initial.take(manifest, agreed, too_late=self._folding is not None):
                self.sites_changed()
        elif self._folding is None or self.over is not None or self.life.state is not m.JobState.RUNNING:
            await self._refuse(manifest, f"the job is {self.life.state if self.over is None else m.JobState.FINISHING}")
        else:
            await self._take_together(self._folding, manifest)

    async def _take_together(self, folding: Folding, first: m.UpdateManifest) -> None:
        """Take an update and those that wait behind it, until something is due: one write for all decisions."""
        until = time.monotonic() + MOST_TOGETHER.total_seconds()
        manifest: m.UpdateManifest | None = first
        while manifest is not None:
            await self._pacing.measured(manifest, active=self.aggregation.active)  # told before the receipt
            await folding.take(manifest)
            manifest = self.complete.next_delta() if self._may_go_on(until) else None
        if self.aborting is None and self.failing is None and self._version_due():
            await folding.commit()
        else:
            await folding.settle()

    def _version_due(self) -> bool:
        # right after a restart no site has come back yet: a buffer must not be committed for their absence
        return bool(self.over is None and self.aggregation.active and self.aggregation.commit_due(now=time.monotonic()))

    def _may_go_on(self, until: float) -> bool:
        now, version, updates = time.monotonic(), self.aggregation.version, self.aggregation.updates
        over = self.aggregation.commit_due(now=now) or self.life.stop_reason(version=version, updates=updates, now=now)
        return now < until and not over

    async def _refuse(self, manifest: m.UpdateManifest, reason: str) -> None:
        verdict = self.aggregation.refuse(m.UpdateId.parse(manifest.update_id), reason=reason)
        if self._folding is not None and isinstance(verdict, Refused):
            await self._folding.refused(verdict, manifest)
        elif isinstance(verdict, Refused):
            await refuse(manifest, reason, tools=self._tools, drop=self._keeper.drop)

    async def _step(self) -> None:
        """Do what is due; a job that has ended by that leaves what it has."""
        if self._broken is not None:
            raise self._broken
        await self._end_if_it_must()
        if not self.life.state.ended:
            await self._advance()
        scored = self.life.state is m.JobState.FINISHING and self._scores_are_in()
        if scored or self.life.state.ended:
            await self._end()

    async def _end_if_it_must(self) -> None:
        """A person ends the job, or it waits for what never comes. A job that has a reason to finish does that."""
        if self.life.state.ended:
            return
        if self.aborting is not None:
            self.life.aborted(self.aborting, now=time.monotonic())
        elif self.failing is not None:
            self.life.failed(self.failing, now=time.monotonic())
        elif self.over is None and (in_vain := await self._prospects.look()):
            self.life.failed(in_vain, now=time.monotonic())

    async def _advance(self) -> None:
        if self._folding is not None and self._resyncs.due(now=time.monotonic()):
            self._folding.snapshot_wanted = True
        if self.life.state is m.JobState.WAITING:
            await self._start_if_possible()
        if self.life.state is m.JobState.RUNNING and self._folding is not None:
            await self._step_running(self._folding)
        if self.life.state is m.JobState.FINISHING and self._folding is not None:
            await self._folding.snapshot_if_wanted()

    async def _step_running(self, folding: Folding) -> None:
        await self._say_pause()
        if self._version_due():
            await folding.commit()
        await folding.tell()
        await folding.snapshot_if_wanted()
        await self._scoring.keep_version()
        now = time.monotonic()
        if self.over is None:
            self.over = self.life.stop_reason(
                version=self.aggregation.version, updates=self.aggregation.updates, now=now
            )
        if self.over is not None and now >= self._finish_from:
            await self._finish(folding, self.over)

    async def _say_pause(self) -> None:
        """The job pauses, or goes on. Not right after a restart, when no site has come back yet."""
        paused = self.waits_for_sites
        if paused == self._pause_told or time.monotonic() < self._finish_from:
            return
        self._pause_told = paused
        if paused:
            text = f"paused: {self.aggregation.too_few}; updates that come wait, nothing is lost"
            await self._event(events.JOB_PAUSED, text)
        elif self.over is None:
            await self._event(events.JOB_RESUMED, f"goes on: {', '.join(sorted(self.active()))} are there")

    # -------------------------------------------------------------- start

    def waits_to_start_for(self) -> str:
        """What keeps the job from starting, in words."""
        active = self.active()
        enough = self.life.can_start(active)
        says = self._layouts.agreement(active, now=time.monotonic()).says if enough else ""
        return f"waiting for sites: {says}" if says else self.life.waiting_for(active)

    async def _start_if_possible(self) -> None:
        await self._initial.check_file()
        if self.life.state.ended:
            return
        active, now = self.active(), time.monotonic()
        if not self.life.can_start(active):
            return
        found = self._layouts.agreement(active, now=now)
        await self._tell_differences(found)
        if self._folding is None:
            await self._initial.see_to(found, active=active)
        elif self.life.can_start(self._layouts.agreeing(self._folding.layout.digest, active, now=now)):
            await self._start(self._folding)
        return

    async def _tell_differences(self, found: Agreement) -> None:
        if self._layouts.differ(self.active()) and found.says != self._told_differences:
            self._told_differences = found.says
            await self._event(events.JOB_WAITING, found.says)

    async def _start(self, folding: Folding) -> None:
        await folding.publish_first()
        self.life.started(now=time.monotonic())
        self.aggregation.restart_timers(now=time.monotonic())
        await self._set_state(m.JobState.RUNNING, started_at=time.time())
        active = sorted(self.active())
        await self._event(events.JOB_RUNNING, f"training begins with {', '.join(active)}", sites=active)
        for site in self.life.accepted_sites:
            await self.welcome(site)

    async def _adopted(self, layout: Layout) -> None:
        await self._tools.store(self._tools.ledger.set_job, self.job, layout=layout.to_dict())
        self._folding = await self._make_folding(layout)

    async def _make_folding(self, layout: Layout) -> Folding:
        log = await self._open_log(self.spec, self.job, layout)
        self._stream = log.stream
        return Folding(
            self.job,
            self.spec,
            layout,
            aggregation=self.aggregation,
            keeper=self._keeper,
            checkpoints=self._checkpoints,
            log=log,
            tools=self._tools,
        )

    # -------------------------------------------------------------- end

    async def _finish(self, folding: Folding, reason: str) -> None:
        if self.aggregation.buffer and not self.aggregation.kept_back:
            await folding.commit("the job ends")
        if self.aggregation.buffer:
            reason = self._with_left_out(reason)
        else:
            await folding.save()
        version, now = self.aggregation.version, time.monotonic()
        self.life.finishing(reason, now=now, score=[version])
        self._scores_until = now + self._tools.score_timeout_s
        await self._set_state(m.JobState.FINISHING, reason=reason)
        self._tools.reached(Point.FINISHING)
        await self._event(events.JOB_FINISHING, f"{reason}; every site scores version {version}", version=version)
        for site in sorted(self.active()):
            await self._tools.announcer.tell(site, m.ScoreRequest(job=self.job, version=version))

    def _with_left_out(self, reason: str) -> str:
        """Why the job ends, and that what was folded last is part of no version."""
        updates = counted(len(self.aggregation.buffer), "update")
        text = f"the last {updates} became no version, for {self.aggregation.kept_back}"
        return reason if "became no version" in reason else f"{reason}; {text}"

    def _scores_are_in(self) -> bool:
        return not self.life.missing_scores() or time.monotonic() >= self._scores_until

    async def _end(self) -> None:
        """However a job ends, it leaves its last version and its best, what was measured of them, and who gave what."""
        outcome = await self._scoring.conclude(has_params=self._folding is not None)
        if not self.life.state.ended:
            self.life.concluded(failed=outcome.failed, note=outcome.note, now=time.monotonic())
        state, reason = self.life.state, self.life.reason
        result = {**outcome.result, "reason": reason}
        await self._tools.store(self._tools.ledger.set_job, self.job, result=result)
        await self._set_state(state, reason=reason, ended_at=time.time())
        self._tools.reached(Point.ENDED)
        for site in sorted(self.life.participants):
            await self._tools.announcer.tell(site, m.JobEnded(job=self.job, state=state, reason=reason))
        await self._event(events.JOB_ENDED, f"{state}: {reason}", state=str(state), result=result)

    async def _set_state(self, state: m.JobState, **columns: object) -> None:
        await self._tools.store(self._tools.ledger.set_job, self.job, state=str(state), **columns)

    async def _event(self, kind: str, text: str, *, site: str = events.NOBODY, **facts: object) -> None:
        await self._tools.announcer.event(kind, self.job, text, site=site, **facts)
