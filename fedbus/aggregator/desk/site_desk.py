"""What sites say, and their leases: membership first, then the runners of the jobs concerned.

A site that is silent for too long is lost: its jobs stop counting on it. A job that stands still says why. What one
site can set off is bounded, see `allowance`: what goes beyond is put off, the newest of its kind, and done later.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import structlog

from fedbus.aggregator.desk import views
from fedbus.aggregator.desk.stalls import Stalls
from fedbus.aggregator.incoming import allowance as cost
from fedbus.aggregator.incoming.put_off import PutOff
from fedbus.aggregator.job.jobs import Jobs
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.trouble import jobs_own, words
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer, Delivery
from fedbus.bus.post import MAX_SITE_MESSAGE_BYTES, SiteMessage
from fedbus.core.job.membership import Heard, Joined, SiteView
from fedbus.core.job.status_text import clock_words, span
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.words import counted
from fedbus.errors import BusError, ClockError, ProtocolError, RepeatedError, StoreError

SITES_PREFETCH = 64
LEASE_CHECK_S = 0.5
# A site that works for jobs which are over says so with every status.
SAY_OVER_S = 5.0
CLOCK_AGAIN_S = 3600.0
WELCOME = 3 * cost.EVENT

log = structlog.get_logger()

Answer = m.OfferAnswer | m.ScoreAnswer | m.StatisticsAnswer | m.ResyncRequest | m.TrainerTrouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A site came or went. `happened`: the event, if it is one. `anew`: it has forgotten what it was asked.

    out: it has left, and reads no version that is made from now on, unless it is let in again.
    """

    happened: events.Happened | None = None
    anew: bool = False
    offer: bool = False
    out: bool = False

    def after(self, before: Turn | None) -> Turn:
        """What is left to do when `before` was not done yet."""
        if before is None:
            return self
        return replace(
            self,
            happened=self.happened or before.happened,
            anew=self.anew or before.anew,
            out=self.out or before.out,
        )


class SiteDesk:
    """`fedbus.sites`, from the aggregator's side.

    `clock` gives seconds that never fall, `wall` those since the epoch.
    """

    def __init__(
        self,
        *,
        tools: Tools,
        jobs: Jobs,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._tools = tools
        self._jobs = jobs
        self._clock = clock
        self._wall = wall
        self._post = tools.post
        self._announcer = tools.announcer
        self._membership = tools.membership
        self._stalls = Stalls()
        self._reading = cost.Allowance(rate=cost.READ_RATE, burst=cost.READ_BURST)
        self._work = cost.Allowance(rate=cost.WORK_RATE, burst=cost.WORK_BURST)
        self._put_off: PutOff[Turn | Answer] = PutOff()
        self._said_over_at: dict[str, float] = {}
        self._said_clock_at: dict[str, float] = {}

    async def serve(self, session: Session) -> None:
        async with Consumer(session, t.SITES, prefetch=SITES_PREFETCH, most_bytes=MAX_SITE_MESSAGE_BYTES) as deliveries:
            async for delivery in deliveries:
                await self.take(delivery)
                await delivery.ack()

    async def take(self, delivery: Delivery) -> None:
        """Take in one message, whatever it is."""
        login = delivery.envelope.user_id
        if login and not self._reading.take(login, now=self._clock()):
            return
        try:
            await self._hear(self._post.from_login(delivery.envelope))
        except RepeatedError as exc:
            log.info("repeated", site=login, error=str(exc))
        except ClockError as exc:
            await self._say_clock(login or "", exc.ahead_s, refused=True)
            await self._announcer.refuse(delivery, str(exc))
        except ProtocolError as exc:
            await self._announcer.refuse(delivery, str(exc))
        except (StoreError, BusError):
            raise
        except Exception as exc:
            log.exception("site-message", site=login, type=delivery.envelope.type)
            await self._announcer.refuse(delivery, f"the aggregator could not take it in: {words(exc)}")

    async def _hear(self, message: SiteMessage) -> None:
        now = self._clock()
        match message:
            case m.Join():
                before = self._membership.get(message.site)
                await self._on_join(message, self._membership.joined(message, now=now), before)
            case m.SiteStatus():
                before = self._membership.get(message.site)
                heard = self._membership.status(message, now=now, epoch_s=self._wall())
                await self._on_status(message, heard, before)
            case m.Leave():
                heard = self._membership.left(message, now=now)
                if heard is Heard.RENEWED:
                    left = events.SiteLeft(site=message.site, reason=message.reason)
                    await self._turn(message.site, Turn(happened=left, out=True))
                elif heard is Heard.UNKNOWN_SITE:
                    await self._turn(message.site, Turn(out=True))  # it left while no aggregator was there
            case m.OfferAnswer() | m.ScoreAnswer() | m.StatisticsAnswer() | m.ResyncRequest() | m.TrainerTrouble():
                await self._on_answer(message)

    # -------------------------------------------------------------- sites that come and go

    async def _on_join(self, join: m.Join, meant: Joined, before: SiteView | None) -> None:
        site = join.site
        match meant:
            case Joined.OLD_SESSION:
                return
            case Joined.AGAIN:
                turn = Turn(offer=True)
            case Joined.NEW:
                joined = events.SiteJoined(site=site, device=join.device, release=join.fedbus_version)
                turn = Turn(happened=joined, anew=True, offer=True)
            case Joined.RETURNED:
                back = events.SiteReturned(site=site, how=self._back(before))
                turn = Turn(happened=back, anew=True, offer=True)
            case Joined.REPLACED:
                how = "joined anew while it was online: its daemon was restarted, or a second one runs"
                turn = Turn(happened=events.SiteReturned(site=site, how=how), anew=True, offer=True)
        await self._turn(site, turn)

    async def _turn(self, site: str, turn: Turn) -> None:
        before = self._put_off.get(site, Turn)
        turn = turn.after(before if isinstance(before, Turn) else None)
        if before is None and self._work.take(site, self._cost(turn), now=self._clock()):
            await self._do_turn(site, turn)
        else:
            self._put_off.put(site, Turn, turn)

    def _cost(self, what: Turn | Answer) -> float:
        match what:
            case Turn(happened=happened, offer=offer):
                said = cost.KEPT if type(happened) in events.INCIDENTS else cost.EVENT
                return max(1, len(self._jobs.runners)) * (said + cost.EVENT * offer)
            case m.OfferAnswer():
                return cost.EVENT + WELCOME
            case m.TrainerTrouble() | m.StatisticsAnswer():
                return cost.KEPT
            case m.ScoreAnswer() | m.ResyncRequest():
                return cost.EVENT

    async def _do_turn(self, site: str, turn: Turn) -> None:
        if turn.happened is not None:
            await self._site_event(turn.happened)
        for runner in list(self._jobs.runners.values()):
            with jobs_own(runner):
                if turn.out:
                    await runner.participants.out(site)
                if turn.anew:
                    runner.site_started_anew(site)
                if turn.offer:
                    await self._jobs.offer(runner, site)
        self._sites_changed()

    async def put_out(self, site: str, reason: str) -> None:
        """A site may not come back as it is: its jobs stop counting on it, and it reads no version made from now on."""
        if self._membership.put_out(site, reason, now=self._clock()):
            self._sites_changed()
        for runner in list(self._jobs.runners.values()):
            with jobs_own(runner):
                await runner.participants.out(site)

    # -------------------------------------------------------------- what they do

    async def _on_status(self, status: m.SiteStatus, heard: Heard, before: SiteView | None) -> None:
        if heard is Heard.UNKNOWN_SITE:
            return self._announcer.answer(status.site, m.RollCall(session=self._tools.session))
        if heard is Heard.UNKNOWN_AGAIN:
            return None
        if heard is Heard.BACK:
            back = events.SiteReturned(site=status.site, how=self._back(before))
            await self._turn(status.site, Turn(happened=back))
        await self._look_at_clock(status.site)
        over = []
        for activity in status.jobs:
            runner = self._jobs.runners.get(activity.job)
            if runner is None:
                over.append(activity.job)
            elif activity.version < 0 and status.site in runner.life.accepted_sites and self._may_welcome(status.site):
                with jobs_own(runner):
                    await runner.participants.welcome(status.site)
            if runner is not None and status.site in runner.life.accepted_sites:
                await self._on_labels(status.site, activity, before)
        return await self._say_over(status.site, over)

    async def _on_labels(self, site: str, activity: m.JobActivity, before: SiteView | None) -> None:
        """Say that a site has more new labels than its last status told."""
        was = None if before is None else before.activities.get(activity.job)
        more = activity.new_labels > max(0, -1 if was is None else was.new_labels)
        if more and self._work.take(site, cost.EVENT, now=self._clock()):
            came = events.LabelsCame(site=site, labels=activity.new_labels, version=activity.version)
            await self._announcer.event(activity.job, came)

    async def _look_at_clock(self, site: str) -> None:
        """Say once that a site's clock is wrong: what it logs is then hard to set beside what others log."""
        view = self._membership.get(site)
        wrong_s = None if view is None else view.skew.much_s
        if wrong_s is not None:
            await self._say_clock(site, wrong_s)

    async def _say_clock(self, site: str, ahead_s: float, *, refused: bool = False) -> None:
        now = self._clock()
        if now - self._said_clock_at.get(site, -math.inf) < CLOCK_AGAIN_S:
            return
        self._said_clock_at[site] = now
        await self._site_event(events.SiteClock(site=site, off=clock_words(ahead_s), refused=refused))

    def _may_welcome(self, site: str) -> bool:
        return self._work.take(site, WELCOME, now=self._clock())  # else its next status asks again

    async def _say_over(self, site: str, jobs: Sequence[str]) -> None:
        """A site still works for jobs that have ended, or that this aggregator never had."""
        now = self._clock()
        if not jobs or now - self._said_over_at.get(site, -SAY_OVER_S) < SAY_OVER_S:
            return
        self._said_over_at[site] = now
        known = await self._tools.compute(self._tools.ledger.endings, jobs)
        for job in jobs:
            state, reason = known.get(job, (str(m.JobState.ABORTED), "this aggregator does not know the job"))
            if m.JobState(state).ended:
                self._announcer.answer(site, m.JobEnded(job=job, state=m.JobState(state), reason=reason))

    async def _on_answer(self, message: Answer) -> None:
        key = type(message), message.job
        if message.job not in self._jobs.runners:
            return
        waits = self._put_off.get(message.site, key) is not None
        if not waits and self._work.take(message.site, self._cost(message), now=self._clock()):
            await self._do_answer(message)
        else:
            self._put_off.put(message.site, key, message)

    async def _do_answer(self, message: Answer) -> None:
        runner = self._jobs.runners.get(message.job)
        if runner is None:
            return
        with jobs_own(runner):
            match message:
                case m.OfferAnswer():
                    await runner.on_answer(message)
                case m.ScoreAnswer():
                    await runner.on_score(message)
                case m.StatisticsAnswer():
                    await runner.on_statistics(message)
                case m.ResyncRequest():
                    await runner.on_resync(message)
                case m.TrainerTrouble():
                    await runner.on_trouble(message)

    # -------------------------------------------------------------- now and then

    async def watch_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_CHECK_S)
            await self.look_around()

    async def look_around(self) -> None:
        """See who is lost, do what was put off, say which jobs stand still and who says too much."""
        now = self._clock()
        for site in self._membership.expire(now=now):
            view = self._membership.get(site)
            reason = view.reason if view else "its lease ran out"
            self._sites_changed()
            await self._turn(site, Turn(happened=events.SiteLost(site=site, reason=reason)))
        await self._do_what_was_put_off()
        for runner in list(self._jobs.runners.values()):
            with jobs_own(runner):
                if self._stalls.should_tell(runner.job, runner.progress, now=now):
                    waiting = events.JobWaiting(what=views.says(runner, self._membership))
                    await self._announcer.event(runner.job, waiting)
        for what, over in (("not read", self._reading), ("put off", self._work)):
            for site, times in over.to_tell(now=now).items():
                text = f"{site} says more than one site may: {counted(times, 'message')} {what}"
                limited = events.SiteLimited(site=site, what=text, messages=times)
                await self._announcer.event(events.NOBODY, limited)

    async def _do_what_was_put_off(self) -> None:
        done = True
        while done:
            done = False
            for site, key, what in self._put_off.oldest():
                try:
                    if self._work.take(site, self._cost(what), now=self._clock(), counted=False):
                        self._put_off.drop(site, key)
                        done = True
                        await (self._do_turn(site, what) if isinstance(what, Turn) else self._do_answer(what))
                except ProtocolError as exc:
                    log.warning("site-message", site=site, error=str(exc))

    def _sites_changed(self) -> None:
        for runner in self._jobs.runners.values():
            with jobs_own(runner):
                runner.sites_changed()

    async def _site_event(self, happened: events.Happened) -> None:
        """An event of a site belongs to every running job, or to none."""
        for job in list(self._jobs.runners) or [events.NOBODY]:
            await self._announcer.event(job, happened)

    def _back(self, before: SiteView | None) -> str:
        """How long a site was away: from when it was last heard of."""
        return "is back" if before is None else f"is back after {span(self._clock() - before.last_heard_at)}"
