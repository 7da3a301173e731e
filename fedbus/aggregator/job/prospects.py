"""What one job waits for and may never get, told to people at once; and when it is waited for no longer.

    metrics    a target or patience on what no site reports: the job has failed when nothing else can end it
    sites      one that the spec names and the broker does not know: waited for, it may be enrolled later
    nobody     too few sites have not declined or given up: the job has failed after `nobody_left_s`, unless one comes
    wall time  a job that has not started by then has failed; it runs anew while sites have no place for the job, or
               while people make the labels that it waits for

What is the case stands in `core.job.prospects` and `core.job.life`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from fedbus.aggregator.tools import Tools
from fedbus.core.job import prospects as core
from fedbus.core.job.life import Job
from fedbus.core.job.status_text import span
from fedbus.core.protocol import events
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.messages import JobState
from fedbus.errors import BusError
from fedbus.store.ledger_schema import ANYBODY

# Enrolling a site is a person's work.
LOOK_FOR_SITES_S = 5.0
MOST_ASKED_FOR = 16


class Prospects:
    """Of one job; `submitted_at` in seconds since the epoch, `waits_for` says what keeps it from starting."""

    def __init__(self, job: str, *, life: Job, tools: Tools, submitted_at: float, waits_for: Callable[[], str]) -> None:
        self._job = job
        self._life = life
        self._tools = tools
        self._waits_for = waits_for
        self._opened_at = now = time.monotonic()
        self._submitted_at = now - max(0.0, time.time() - submitted_at)
        self._nobody_left = ""
        self._left: frozenset[str] = frozenset()
        self._nobody_since = now
        self._doubtful: Collection[str] = life.head.sites or ()
        self._unknown: Mapping[str, str] = {}
        self._look_at = now
        self._told: set[str] = set()

    @property
    def says(self) -> str:
        """What is waited for and may never come; empty when nothing is."""
        return "; ".join(filter(None, (self._life.waits_for_metrics, *self._unknown.values())))

    @property
    def nobody_left(self) -> str:
        """Too few sites are left, for these reasons, and when the job fails for that; empty while enough are."""
        if not self._nobody_left:
            return ""
        left_s = self._nobody_since + self._tools.nobody_left_s - time.monotonic()
        return f"{self._nobody_left}; the job fails in {span(left_s)} unless a site comes"

    async def look(self) -> str:
        """See what is waited for in vain and say what is new of it; return why the job has failed, or nothing."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_FOR_SITES_S
            self._unknown = await unknown_sites(self._doubtful, self._tools)
            self._doubtful = self._unknown.keys()
        self._see_who_is_left(now)
        await self._tell("metrics", self._life.waits_for_metrics)
        await self._tell("sites", "; ".join(self._unknown.values()))
        await self._tell("nobody", self.nobody_left)
        return self._life.cannot_end() or self._nobody_came(now) or self._never_started(now)

    async def _tell(self, what: str, text: str) -> None:
        if text and what not in self._told:
            await self._tools.announcer.event(self._job, events.JobWaiting(what=text))
        self._told = self._told | {what} if text else self._told - {what}

    def _see_who_is_left(self, now: float) -> None:
        declined = self._life.declined_sites
        if not declined:
            self._nobody_left = ""
            return
        known = self._life.participants.union(view.name for view in self._tools.membership.views())
        left = core.left(self._life.head, known=known, declined=declined)
        if not self._nobody_left or left - self._left:
            self._nobody_since = now  # a site that comes may bring others
        self._left = left
        self._nobody_left = core.nobody_left(self._life.head, known=known, declined=declined)

    def _nobody_came(self, now: float) -> str:
        over = now - self._nobody_since >= self._tools.nobody_left_s
        return self._nobody_left if over else ""

    def _never_started(self, now: float) -> str:
        at_least = self._opened_at + self._tools.nobody_left_s
        if self._is_in_line() or self._life.waits_for_people:
            self._submitted_at = now
        until = self._life.waits_until(submitted=self._submitted_at, at_least=at_least)
        if self._life.state is not JobState.WAITING or until is None or now < until:
            return ""
        return f"not started within its wall time of {self._life.wall_time_s:g} s: {self._waits_for()}"

    def _is_in_line(self) -> bool:
        """Whether a site would begin, and other jobs have all its places: those end, so this wait has an end, too."""
        views = (self._tools.membership.get(site) for site in self._life.accepted_sites)
        found = (view.activities.get(self._job) for view in views if view is not None)
        return any(activity is not None and activity.activity is Activity.QUEUED for activity in found)


async def unknown_sites(named: Collection[str], tools: Tools) -> dict[str, str]:
    """Say of each site that is neither here nor enrolled which one may be meant; MOST_ASKED_FOR are looked up."""
    here = {view.name for view in tools.membership.views()}
    not_here = [site for site in named if site not in here][:MOST_ASKED_FOR]
    if not not_here:
        return {}
    known = (await tools.compute(tools.ledger.sites) | here) - {ANYBODY, *named}
    return {site: core.unknown_site(site, known) for site in not_here if not await _enrolled(site, tools)}


async def _enrolled(site: str, tools: Tools) -> bool:
    """Whether the broker knows a site; also when it does not say."""
    try:
        return await tools.enrolled(site)
    except BusError:
        return True
