"""The life of one job at the aggregator: offer, start, pause, end.

What it does in between is its `Work`'s, who takes part its `Participants`'.

`serve` is one loop: whatever comes (a complete update, an answer, a lost site, a clock) it takes what came and then
looks at what is due. States are `core.job.life`'s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

from fedbus.aggregator.incoming.complete import Complete, Item, Unwanted
from fedbus.aggregator.incoming.entrance import Entrance
from fedbus.aggregator.job.participants import Participants
from fedbus.aggregator.job.prospects import Prospects
from fedbus.aggregator.job.resyncs import Resyncs
from fedbus.aggregator.job.work import SITES_RETURN, Outcome, Work
from fedbus.aggregator.model.epochs import Epochs
from fedbus.aggregator.tools import Tools
from fedbus.core.job.life import Job
from fedbus.core.job.status_text import span
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.answers import Receiving
from fedbus.core.protocol.layout import Layout
from fedbus.core.spec.cross_site import follow_up_id
from fedbus.core.words import counted
from fedbus.runtime.faults import Point
from fedbus.store.rows import FollowUp, JobRow

LOOK_AGAIN_S = 1.0


class JobRunner:
    """State of one job. `entrance` lets sites in, `complete` is the line of what they have sent.

    epochs: who has the keys of its model log; None without kits.
    """

    def __init__(
        self,
        row: JobRow,
        *,
        work: Work,
        complete: Complete,
        tools: Tools,
        entrance: Entrance,
        epochs: Epochs | None = None,
        sites_return: timedelta = SITES_RETURN,
    ) -> None:
        self.row = row
        self.job = row.job
        self.work = work
        self.life: Job = work.life
        self.life.offered(now=time.monotonic())  # a site that joins while the job is being opened may answer at once
        self.complete = complete
        self.entrance = entrance
        self._resyncs = Resyncs()
        self.participants = Participants(
            row.job, work=work, entrance=entrance, tools=tools, resyncs=self._resyncs, epochs=epochs
        )
        self.receiving: Callable[[], tuple[Receiving, ...]] = tuple
        """Uploads under way, as the intake sees them."""
        self._tools = tools
        self._broken: Exception | None = None
        self._prospects = Prospects(
            self.job, life=self.life, tools=tools, submitted_at=row.submitted_at, waits_for=self.waits_to_start_for
        )
        self.aborting: str | None = None
        """Why a person ends the job; None when nobody does."""
        self.failing: str | None = None
        """Why the aggregator gives the job up; None while it does not."""
        self.over: str | None = None
        """Why a running job ends, once that is known; None before."""
        self.opened = False
        """Whether the job was taken up where the ledger says it is."""
        self._sites_return_s = sites_return.total_seconds()
        self._was_at: int | None = None
        self._finish_from = 0.0
        self._written_at = 0.0
        self._pause_told = False

    # -------------------------------------------------------------- what the daemon tells

    def sites_changed(self) -> None:
        """Sites came, went, accepted or declined."""
        self.work.sites_changed(self.active())
        self._nudge()

    def site_started_anew(self, site: str) -> None:
        """A site has forgotten what it was asked; its task may be another one now."""
        self.work.site_started_anew(site)

    def active(self) -> frozenset[str]:
        """Sites that have accepted and are online."""
        return self.life.accepted_sites & self._tools.membership.online(now=time.monotonic())

    async def on_answer(self, answer: m.OfferAnswer) -> None:
        """A site accepts or declines."""
        await self.participants.answered(answer)
        self.sites_changed()

    async def on_score(self, score: m.ScoreAnswer) -> None:
        """A site scored a version, or could not."""
        await self.work.on_score(score)
        self._nudge()

    async def on_statistics(self, answer: m.StatisticsAnswer) -> None:
        """A site says statistics of its data, or why it cannot."""
        await self.work.on_statistics(answer)
        await self.participants.look_again()
        self.sites_changed()

    async def on_resync(self, request: m.ResyncRequest) -> None:
        """A site of the job cannot follow the model log: soon the newest version comes as a snapshot, for all."""
        if request.site not in self.active():
            return
        await self.participants.tell_keys_again(request.site)
        if self._resyncs.ask(request.site, now=time.monotonic()):
            await self._event(events.SiteResync(site=request.site, reason=request.reason))
        for site, times in self._resyncs.to_tell(now=time.monotonic()).items():
            text = f"{site} asks for snapshots again and again: {counted(times, 'request')} not met"
            await self._event(events.SiteLimited(site=site, what=text))
        self._nudge()

    async def on_trouble(self, trouble: m.TrainerTrouble) -> None:
        """A trainer of a site of the job died; the site tries again, or gives the job up."""
        if not self.participants.takes_part(trouble.site):
            return
        site, error = trouble.site, trouble.error
        await self._event(events.TrainerTrouble(site=site, error=error, restarts=trouble.restarts, fatal=trouble.fatal))
        if trouble.fatal:
            await self.participants.out(trouble.site)
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
        return self.work.layout

    @property
    def version(self) -> int | None:
        """The newest version; while the job is taken up after a restart, the one decided on last; None: unknown."""
        if self.opened or self.row.started_at is None:
            return self.work.version
        return self._was_at

    @property
    def progress(self) -> tuple[m.JobState, tuple[int, ...]]:
        """Changes whenever the job moves."""
        return self.life.state, self.work.progress

    @property
    def paused(self) -> str | None:
        """Why nothing is taken at the moment: the disk is full."""
        return self._tools.disk.full

    @property
    def waits_for_sites(self) -> bool:
        """Whether the job runs and nothing is decided, for too few of its sites are there: what comes waits."""
        running = self.life.state is m.JobState.RUNNING and self.over is None
        return running and bool(self.work.paused)

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
        await self.participants.open()
        self._written_at = await self._tools.store(self._tools.ledger.last_sign_of_life, self.job)
        self._was_at = await self._tools.store(self._tools.ledger.last_committed, self.job)
        await self.work.open()
        if self.row.started_at is None:
            return await self._set_state(m.JobState.WAITING)
        # what it has run already is no less than what its own clock said, should this one be behind
        ran_s = max(time.time(), self._written_at) - self.row.started_at
        self.life.started(now=now - max(0.0, ran_s))
        self.over = self.row.reason if self.row.state == m.JobState.FINISHING else None
        self._finish_from = time.monotonic() + self._sites_return_s
        away = span(max(0.0, time.time() - self._written_at))
        continues = events.JobContinues(version=self.work.version, away=away, redone=self.work.redone)
        return await self._event(continues)

    async def serve(self) -> None:
        """Work until the job has ended."""
        async with self.work.beside():
            await self._serve()

    async def _serve(self) -> None:
        await self._step()
        while not self.life.state.ended:
            item = await self._next()
            if isinstance(item, Unwanted):
                await self.work.refuse(item.manifest, item.reason)
            elif item is not None:
                await self._take(item)
            await self._step()

    async def _next(self) -> Item:
        """The next complete update; None after a nudge, or when the clock makes something due."""
        now = time.monotonic()
        due = [t for t in (self.work.due_at(now=now), self.life.wall_time_ends_at()) if t is not None]
        wait_s = min([LOOK_AGAIN_S, *(max(0.01, t - now) for t in due)])
        try:
            async with asyncio.timeout(wait_s):
                return await (self.complete.get_but_deltas() if self.waits_for_sites else self.complete.get())
        except TimeoutError:
            return None

    async def _take(self, manifest: m.UpdateManifest) -> None:
        if manifest.kind is m.UpdateKind.INITIAL:
            if not await self.work.take_initial(manifest, self.active()):
                self.sites_changed()
        elif manifest.kind is m.UpdateKind.LOCAL:
            await self.work.take_local(manifest)
        elif self.over is not None or self.life.state is not m.JobState.RUNNING:
            state = self.life.state if self.over is None else m.JobState.FINISHING
            await self.work.refuse(manifest, f"the job is {state}")
        else:
            await self.work.take(manifest, ending=self.aborting is not None or self.failing is not None)

    async def _step(self) -> None:
        """Do what is due; a job that has ended by that leaves what it has."""
        if self._broken is not None:
            raise self._broken
        await self._end_if_it_must()
        if not self.life.state.ended:
            await self._advance()
        done = self.life.state is m.JobState.FINISHING and await self.work.step_finishing()
        if done or self.life.state.ended:
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
        if self._resyncs.due(now=time.monotonic()):
            self.work.snapshot_wanted()
        if self.life.state is m.JobState.WAITING and await self.work.prepare(self.active()):
            await self._start()
        if self.life.state is m.JobState.RUNNING:
            await self._step_running()

    async def _step_running(self) -> None:
        await self._say_pause()
        found = await self.work.step(ending=self.over is not None)
        self.over = self.over if self.over is not None else found
        if self.over is not None and time.monotonic() >= self._finish_from:
            await self._finish(self.over)

    async def _say_pause(self) -> None:
        """The job pauses, or goes on. Not right after a restart, when no site has come back yet."""
        paused = self.waits_for_sites
        if paused == self._pause_told or time.monotonic() < self._finish_from:
            return
        self._pause_told = paused
        if paused:
            await self._event(events.JobPaused(why=self.work.paused))
        elif self.over is None:
            await self._event(events.JobResumed(there=tuple(sorted(self.active()))))

    # -------------------------------------------------------------- start

    def waits_to_start_for(self) -> str:
        """What keeps the job from starting, in words."""
        return self.work.waits_to_start_for(self.active())

    async def _start(self) -> None:
        await self.work.begin()
        self.life.started(now=time.monotonic())
        await self._set_state(m.JobState.RUNNING, started_at=time.time())
        await self._event(events.JobRunning(doing=self.work.doing, sites=tuple(sorted(self.active()))))
        for site in self.life.accepted_sites:
            await self.participants.welcome(site)

    # -------------------------------------------------------------- end

    async def _finish(self, reason: str) -> None:
        comes = await self.work.finish(reason)
        reason, version = self.life.reason, self.work.version
        await self._set_state(m.JobState.FINISHING, reason=reason)
        self._tools.reached(Point.FINISHING)
        await self._event(events.JobFinishing(version=version, reason=reason, comes=comes))

    async def _end(self) -> None:
        """However a job ends, it leaves what its work has come to."""
        outcome = await self.work.conclude()
        if not self.life.state.ended:
            self.life.concluded(failed=outcome.failed, note=outcome.note, now=time.monotonic())
        state, reason = self.life.state, self.life.reason
        follow_up = self._follow_up(outcome)
        result = {**outcome.result, "reason": reason} | ({} if follow_up is None else {"follow_up": follow_up.job})
        end_job, now = self._tools.ledger.end_job, time.time()
        await self._tools.store(
            end_job, self.job, state=str(state), reason=reason, result=result, at=now, follow_up=follow_up
        )
        self._tools.reached(Point.ENDED)
        for site in sorted(self.life.participants):
            await self._tools.announcer.tell(site, m.JobEnded(job=self.job, state=state, reason=reason))
        await self._event(events.JobEnded(state=str(state), reason=reason, result=result))

    def _follow_up(self, outcome: Outcome) -> FollowUp | None:
        if outcome.follow_up is None or self.life.state is not m.JobState.FINISHED:
            return None
        job = follow_up_id(self.job, self.row.submitted_at)
        return FollowUp(job=job, spec=outcome.follow_up.to_dict(), state=str(m.JobState.SUBMITTED))

    async def _set_state(self, state: m.JobState, **columns: object) -> None:
        await self._tools.store(self._tools.ledger.set_job, self.job, state=str(state), **columns)

    async def _event(self, happened: events.Happened) -> None:
        await self._tools.announcer.event(self.job, happened)
