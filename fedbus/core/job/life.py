"""The life of one job, of whatever kind.

What lives here: states and their transitions, which sites take part. What may not: what a kind does in between (see
`training` for scores and stop rules), clocks (`now` is an argument: seconds, never falling), messages.

    from                        by            to
    submitted                   offered       waiting for sites
    waiting for sites           started       running
    running                     finishing     finishing
    finishing                   finished      finished
    any that has not ended      failed        failed
    any that has not ended      aborted       aborted

What is not in the table raises ProtocolError and changes nothing. Answers of sites race with the end of a job: those
that come too late are no error, they return False. A job with a wall time that has not started ends as well, see
`waits_until`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedbus.core.protocol.messages import JobState
from fedbus.core.spec.head import JobSpec
from fedbus.errors import ProtocolError

_NEXT: Mapping[str, tuple[JobState, JobState]] = {
    "offered": (JobState.SUBMITTED, JobState.WAITING),
    "started": (JobState.WAITING, JobState.RUNNING),
    "finishing": (JobState.RUNNING, JobState.FINISHING),
    "finished": (JobState.FINISHING, JobState.FINISHED),
}


class Job:
    """One job on its way. `spec` and what the sites answered decide; the caller acts.

    wall_time_s: the job ends so many seconds after it has started; None: time does not end it.
    """

    def __init__(self, spec: JobSpec, *, wall_time_s: float | None = None) -> None:
        self._head = spec
        self._wall_time_s = wall_time_s
        self._state = JobState.SUBMITTED
        self._since: float | None = None
        self._started_at: float | None = None
        self._reason = ""
        self._accepted: set[str] = set()
        self._ever_accepted: set[str] = set()
        self._declined: dict[str, str] = {}
        self._active: frozenset[str] = frozenset()

    # -------------------------------------------------------------- what is known

    @property
    def head(self) -> JobSpec:
        return self._head

    @property
    def state(self) -> JobState:
        return self._state

    @property
    def since(self) -> float | None:
        """When the state began; None in `submitted`."""
        return self._since

    @property
    def reason(self) -> str:
        """Why the job is finishing or has ended; empty before."""
        return self._reason

    @property
    def accepted_sites(self) -> frozenset[str]:
        return frozenset(self._accepted)

    @property
    def participants(self) -> frozenset[str]:
        """Sites that have ever accepted, also those that gave up since."""
        return frozenset(self._ever_accepted)

    @property
    def declined_sites(self) -> Mapping[str, str]:
        """Reasons by site."""
        return dict(self._declined)

    @property
    def wall_time_s(self) -> float | None:
        return self._wall_time_s

    @property
    def waits_for_metrics(self) -> str:
        """Say what a running job waits for that no site reports; empty: nothing."""
        return ""

    @property
    def waits_for_people(self) -> bool:
        """Whether the start waits for work that people do: no wall time runs meanwhile."""
        return False

    def cannot_end(self) -> str | None:
        """Say why a running job can never end by itself; None while it may, or not enough is known."""
        return None

    def can_start(self, online: Collection[str]) -> bool:
        """Whether the job waits for sites and as many of those that accepted are online as it asks for."""
        return self._state is JobState.WAITING and len(self._accepted & set(online)) >= self._head.least_sites

    def waiting_for(self, online: Collection[str]) -> str:
        """Say what keeps the job from starting, e.g. 'waiting for sites: 1 of 2 accepted; declined: va (reason)'."""
        ready = len(self._accepted & set(online))
        text = f"waiting for sites: {ready} of {self._head.least_sites} accepted"
        declined = ", ".join(f"{site} ({reason})" for site, reason in sorted(self._declined.items()))
        return f"{text}; declined: {declined}" if declined else text

    # -------------------------------------------------------------- transitions

    def offered(self, *, now: float) -> None:
        """The job was offered to the sites."""
        self._go("offered", now=now)

    def started(self, *, now: float) -> None:
        """Initial params are there and version 0 is published; wall time runs from here."""
        self._go("started", now=now)
        self._started_at = now

    def finishing(self, reason: str, *, now: float) -> None:
        """The work is done, or a stop rule was reached."""
        self._go("finishing", now=now)
        self._reason = reason

    def finished(self, *, now: float) -> None:
        """All is scored and exported."""
        self._go("finished", now=now)

    def concluded(self, *, failed: str, note: str, now: float) -> None:
        """All is scored: the job has failed after all, for that reason; or it is finished, perhaps with a note."""
        if failed:
            return self.failed(failed, now=now)
        self.finished(now=now)
        self._reason = f"{self._reason}; {note}" if note else self._reason
        return None

    def failed(self, reason: str, *, now: float) -> None:
        """The job cannot go on."""
        self._end(JobState.FAILED, reason, now=now)

    def aborted(self, reason: str, *, now: float) -> None:
        """A person ended the job."""
        self._end(JobState.ABORTED, reason, now=now)

    # -------------------------------------------------------------- sites

    def may_answer(self, site: str) -> bool:
        """Whether a site may accept or decline; False when it is too late. ProtocolError when nobody asked it."""
        if self._state is JobState.SUBMITTED or (self._head.sites is not None and site not in self._head.sites):
            raise ProtocolError(f"site {site} answers for job {self._head.name}, which was not offered to it")
        return self._state in (JobState.WAITING, JobState.RUNNING)

    def accepted(self, site: str) -> bool:
        """A site takes part from now on; False when it is too late. ProtocolError when nobody asked it."""
        if not self.may_answer(site):
            return False
        self._declined.pop(site, None)
        self._accepted.add(site)
        self._ever_accepted.add(site)
        return True

    def took_part(self, site: str) -> None:
        """A site had accepted before the aggregator was started anew; whether it is there, it says itself."""
        self._ever_accepted.add(site)

    def declined(self, site: str, reason: str) -> bool:
        """A site does not take part, or no longer; False when it is too late. ProtocolError when nobody asked it."""
        if not self.may_answer(site):
            return False
        self._accepted.discard(site)
        self._declined[site] = reason
        return True

    def set_active(self, sites: Collection[str]) -> None:
        """Say which accepted sites are there now."""
        self._active = frozenset(sites)

    @property
    def active(self) -> frozenset[str]:
        """The accepted sites that are there."""
        return self._active

    # -------------------------------------------------------------- time

    def wall_time_over(self, *, now: float) -> str | None:
        """Say that the wall time of a running job is over; None while it is not."""
        ends_at = self.wall_time_ends_at()
        return None if ends_at is None or now < ends_at else f"the wall time of {self._wall_time_s:g} s is over"

    def waits_until(self, *, submitted: float, at_least: float) -> float | None:
        """Return when a job that has not started by then has failed: its wall time after it was submitted.

        But not before `at_least`: sites need a while to come. None without a wall time.
        """
        return None if self._wall_time_s is None else max(submitted + self._wall_time_s, at_least)

    def wall_time_ends_at(self) -> float | None:
        """Return when the wall time ends; None without one or when not running."""
        if self._state is not JobState.RUNNING or self._wall_time_s is None or self._started_at is None:
            return None
        return self._started_at + self._wall_time_s

    def _go(self, by: str, *, now: float) -> None:
        before, after = _NEXT[by]
        if self._state is not before:
            raise ProtocolError(f"job {self._head.name} is {self._state}; only a job that is {before} can be {by}")
        self._state, self._since = after, now

    def _end(self, state: JobState, reason: str, *, now: float) -> None:
        if self._state.ended:
            raise ProtocolError(f"job {self._head.name} is {self._state} already; it cannot become {state}")
        self._state, self._since, self._reason = state, now, reason
