"""Events in the life of a job, and of the broker and the disk that all jobs share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedbus.core.protocol.events.base import Happened, in_text


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted(Happened):
    """A job was accepted by the aggregator."""

    kind: ClassVar[str] = "job-submitted"
    login: str = in_text()
    task: str = in_text()

    def sentence(self) -> str:
        return f"{self.login} submitted task {self.task}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWaiting(Happened):
    """A job waits. `what`: for what, and who is where, in words."""

    kind: ClassVar[str] = "job-waiting"
    what: str = in_text()

    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRunning(Happened):
    """The work of a job begins with these sites. `doing`: the work in a word."""

    kind: ClassVar[str] = "job-running"
    sites: tuple[str, ...] = ()
    doing: str = in_text("training")

    def sentence(self) -> str:
        return f"{self.doing} begins with {', '.join(self.sites)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContinues(Happened):
    """A job is taken up after a restart. `away`: how long nobody worked; `redone`: what had to be done again."""

    kind: ClassVar[str] = "job-continues"
    version: int | None = in_text(None)
    away: str = in_text()
    redone: str = in_text()

    def sentence(self) -> str:
        at = "" if self.version is None else f" at version {self.version}"
        text = f"continues{at} after {self.away} without an aggregator"
        return f"{text}; {self.redone}" if self.redone else text


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTrouble(Happened):
    """Something went wrong in the aggregator, in this job alone. `retry_s`: it is taken up again after that pause."""

    kind: ClassVar[str] = "job-trouble"
    reason: str = in_text()
    retry_s: float | None = in_text(None)

    def sentence(self) -> str:
        if self.retry_s is None:
            return self.reason
        return f"something went wrong in the aggregator: {self.reason}; the job is taken up again in {self.retry_s:g} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPaused(Happened):
    """Too few sites are there to go on."""

    kind: ClassVar[str] = "job-paused"
    why: str = in_text()

    def sentence(self) -> str:
        return f"paused: {self.why}; updates that come wait, nothing is lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResumed(Happened):
    """Enough sites are there again."""

    kind: ClassVar[str] = "job-resumed"
    there: tuple[str, ...] = in_text(())

    def sentence(self) -> str:
        return f"goes on: {', '.join(self.there)} are there"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinishing(Happened):
    """The work is over, at this version where it makes any. `comes`: what is still to be done."""

    kind: ClassVar[str] = "job-finishing"
    version: int | None = None
    reason: str = in_text()
    comes: str = in_text()

    def sentence(self) -> str:
        return f"{self.reason}; {self.comes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(Happened):
    """A job is over. `result`: what the aggregator keeps of it."""

    kind: ClassVar[str] = "job-ended"
    state: str
    result: Mapping[str, Any] = field(default_factory=dict)
    reason: str = in_text()

    def sentence(self) -> str:
        follow_up = self.result.get("follow_up")
        return f"{self.state}: {self.reason}" + ("" if follow_up is None else f"; job {follow_up} follows")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerBack(Happened):
    """The broker is there again. `away`: how long it was not, in words."""

    kind: ClassVar[str] = "broker-back"
    away: str = in_text()

    def sentence(self) -> str:
        return f"the broker could not be reached for {self.away}; what waited there comes now"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUnblocked(Happened):
    """The broker takes messages again. `blocked`: how long it took none, in words."""

    kind: ClassVar[str] = "broker-unblocked"
    blocked: str = in_text()

    def sentence(self) -> str:
        return (
            f"the broker took no messages for {self.blocked}: memory or disk alarm (see `fedbus broker status`, or"
            " rabbitmqctl status there)"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskHasRoom(Happened):
    """The aggregator writes again. `what`: how long it could not, in words."""

    kind: ClassVar[str] = "disk-has-room"
    what: str = in_text()

    def sentence(self) -> str:
        return self.what
