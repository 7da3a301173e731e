"""What sites say, and their leases: membership first, then the runners of the jobs concerned.

A site that is silent for too long is lost: its jobs stop counting on it. A job that stands still says why.
"""

from __future__ import annotations

import asyncio
import time

from fedbus.bus import mail
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.core import events
from fedbus.core import messages as m
from fedbus.core.membership import Heard, Joined, SiteView
from fedbus.core.status_text import span
from fedbus.errors import ProtocolError
from services.aggregator import views
from services.aggregator.jobs import Jobs
from services.aggregator.stalls import Stalls
from services.aggregator.tools import Tools

SITES_PREFETCH = 64
LEASE_CHECK_S = 0.5


class SiteDesk:
    """`fedbus.sites`, from the aggregator's side."""

    def __init__(self, *, tools: Tools, jobs: Jobs) -> None:
        self._tools = tools
        self._jobs = jobs
        self._announcer = tools.announcer
        self._membership = tools.membership
        self._stalls = Stalls()

    async def serve(self, session: Session) -> None:
        most_bytes = mail.MAX_SITE_MESSAGE_BYTES
        async with Consumer(session, t.SITES, prefetch=SITES_PREFETCH, most_bytes=most_bytes) as deliveries:
            async for delivery in deliveries:
                try:
                    await self._hear(mail.from_login(delivery.envelope))
                except ProtocolError as exc:
                    await self._announcer.refuse(delivery, str(exc))
                await delivery.ack()

    async def _hear(self, message: mail.SiteMessage) -> None:
        now = time.monotonic()
        match message:
            case m.Join():
                before = self._membership.get(message.site)
                await self._on_join(message, self._membership.joined(message, now=now), before)
            case m.SiteStatus():
                before = self._membership.get(message.site)
                await self._on_status(message, self._membership.status(message, now=now), before)
            case m.Leave():
                if self._membership.left(message, now=now) is Heard.RENEWED:
                    await self._site_event(events.SITE_LEFT, message.site, f"{message.site} left: {message.reason}")
                    self._sites_changed()
            case m.OfferAnswer() | m.ScoreAnswer() | m.ResyncRequest() | m.TrainerTrouble():
                await self._on_answer(message)

    async def _on_join(self, join: m.Join, meant: Joined, before: SiteView | None) -> None:
        if meant is Joined.OLD_SESSION:
            return
        match meant:
            case Joined.NEW:
                text = f"{join.site} joined ({join.device}, fedbus {join.fedbus_version})"
                await self._site_event(events.SITE_JOINED, join.site, text)
            case Joined.RETURNED:
                await self._site_event(events.SITE_RETURNED, join.site, f"{join.site} {_back(before)}")
            case Joined.REPLACED:
                text = f"{join.site} joined anew while it was online: its daemon was restarted, or a second one runs"
                await self._site_event(events.SITE_RETURNED, join.site, text)
            case Joined.AGAIN:
                pass
        for runner in list(self._jobs.runners.values()):
            if meant is not Joined.AGAIN:
                runner.site_started_anew(join.site)
            await self._jobs.offer(runner, join.site)
        self._sites_changed()

    async def _on_status(self, status: m.SiteStatus, heard: Heard, before: SiteView | None) -> None:
        if heard is Heard.UNKNOWN_SITE:
            return await self._announcer.tell(status.site, m.RollCall(session=self._tools.session))
        if heard is Heard.UNKNOWN_AGAIN:
            return None
        if heard is Heard.BACK:
            await self._site_event(events.SITE_RETURNED, status.site, f"{status.site} {_back(before)}")
            self._sites_changed()
        for activity in status.jobs:
            runner = self._jobs.runners.get(activity.job)
            if runner is None:
                await self._say_over(status.site, activity.job)
            elif activity.version < 0 and status.site in runner.life.accepted_sites:
                await runner.welcome(status.site)
        return None

    async def _say_over(self, site: str, job: str) -> None:
        """A site still works for a job that has ended, or that this aggregator never had."""
        rows = await self._tools.store(self._tools.ledger.jobs)
        row = next((r for r in rows if r.job == job), None)
        if row is None:
            reason = "this aggregator does not know the job"
            await self._announcer.tell(site, m.JobEnded(job=job, state=m.JobState.ABORTED, reason=reason))
        elif m.JobState(row.state).ended:
            await self._announcer.tell(site, m.JobEnded(job=job, state=m.JobState(row.state), reason=row.reason))

    async def _on_answer(self, message: m.OfferAnswer | m.ScoreAnswer | m.ResyncRequest | m.TrainerTrouble) -> None:
        runner = self._jobs.runners.get(message.job)
        if runner is None:
            return
        match message:
            case m.OfferAnswer():
                await runner.on_answer(message)
            case m.ScoreAnswer():
                await runner.on_score(message)
            case m.ResyncRequest():
                await runner.on_resync(message)
            case m.TrainerTrouble():
                await runner.on_trouble(message)

    async def watch_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_CHECK_S)
            lost = self._membership.expire(now=time.monotonic())
            for site in lost:
                view = self._membership.get(site)
                reason = view.reason if view else "its lease ran out"
                await self._site_event(events.SITE_LOST, site, f"{site} is lost: {reason}")
            if lost:
                self._sites_changed()
            for runner in list(self._jobs.runners.values()):
                if self._stalls.should_tell(runner.job, runner.progress, now=time.monotonic()):
                    text = views.says(runner, self._membership)
                    await self._announcer.event(events.JOB_WAITING, runner.job, text)

    def _sites_changed(self) -> None:
        for runner in self._jobs.runners.values():
            runner.sites_changed()

    async def _site_event(self, kind: str, site: str, text: str) -> None:
        """An event of a site belongs to every running job, or to none."""
        for job in list(self._jobs.runners) or [events.NOBODY]:
            await self._announcer.event(kind, job, text, site=site)


def _back(before: SiteView | None) -> str:
    """How long a site was away: from when it was last heard of."""
    return "is back" if before is None else f"is back after {span(time.monotonic() - before.last_heard_at)}"
