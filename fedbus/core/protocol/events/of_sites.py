"""Events of one site: who comes and goes, takes part, has trouble or says too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fedbus.core.protocol.events.base import Happened, in_text
from fedbus.core.words import counted

FAR_ABOVE, FAR_BELOW = 1.9, 0.55
FASTER = "does it send more often than the others? strategy: auto or calibrated makes up for speed"
SLOWER = "do its updates come seldom, late, or much cut? strategy: auto or calibrated makes up for speed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteJoined(Happened):
    """A site that was not known is here."""

    kind: ClassVar[str] = "site-joined"
    device: str = in_text()
    release: str = in_text()

    def sentence(self) -> str:
        return f"{self.site} joined ({self.device}, fedbus {self.release})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReturned(Happened):
    """A site is here again. `how`: after what, in words."""

    kind: ClassVar[str] = "site-returned"
    how: str = in_text()

    def sentence(self) -> str:
        return f"{self.site} {self.how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLeft(Happened):
    """A site said goodbye."""

    kind: ClassVar[str] = "site-left"
    reason: str = in_text()

    def sentence(self) -> str:
        return f"{self.site} left: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLost(Happened):
    """A site is silent for longer than its lease."""

    kind: ClassVar[str] = "site-lost"
    reason: str = in_text()

    def sentence(self) -> str:
        return f"{self.site} is lost: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRevoked(Happened):
    """A site's certificate was revoked: it is put out. `since`: when, in ISO 8601, UTC."""

    kind: ClassVar[str] = "site-revoked"
    since: str = ""

    def sentence(self) -> str:
        return f"{self.site} is put out: its certificate was revoked at {self.since}; others go on without it"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationListOld(Happened):
    """The federation's revocation list is past half its time, or past its end: then nobody gets in. `ends`: ISO."""

    kind: ClassVar[str] = "revocation-list-old"
    ends: str = ""
    over: bool = False

    def sentence(self) -> str:
        what = "has ended" if self.over else "ends"
        then = "no connection is taken any more" if self.over else "after that no connection is taken"
        return (
            f"the federation's revocation list {what} on {self.ends}: {then}; every `fedbus provision` command that "
            "changes something renews it"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteAccepted(Happened):
    """A site takes part in a job."""

    kind: ClassVar[str] = "site-accepted"

    def sentence(self) -> str:
        return f"{self.site} takes part"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDeclined(Happened):
    """A site takes no part in a job."""

    kind: ClassVar[str] = "site-declined"
    reason: str = in_text()

    def sentence(self) -> str:
        return f"{self.site} declined: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsCame(Happened):
    """A site's data source has brought labels: so many that the task was not trained with there, at that version."""

    kind: ClassVar[str] = "labels-came"
    labels: int = 0
    version: int = -1

    def sentence(self) -> str:
        at = f" at version {self.version}" if self.version >= 0 else ""
        return f"{self.site} has {counted(self.labels, 'new label')}{at}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteLimited(Happened):
    """A site says more than it may. `what`: of what, in a sentence; `messages`: how many were not read or put off."""

    kind: ClassVar[str] = "site-limited"
    messages: int | None = None
    what: str = in_text()

    def sentence(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteResync(Happened):
    """A site cannot follow the model log."""

    kind: ClassVar[str] = "site-resync"
    reason: str = in_text()

    def sentence(self) -> str:
        return f"{self.site} asks for a snapshot: {self.reason}"


_TIMES_ALONE = "only times in logs and lists suffer from it"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteClock(Happened):
    """The clock of a site is wrong. `off`: by how much, such as '40 s ahead of'.

    refused: so much that what it signs does not count.
    """

    kind: ClassVar[str] = "site-clock"
    refused: bool = in_text(False)
    off: str = in_text()

    def sentence(self) -> str:
        suffers = "nothing that it signs counts until it is set" if self.refused else _TIMES_ALONE
        return f"{self.site}: its clock is {self.off} the aggregator's; {suffers}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerTrouble(Happened):
    """A trainer of a site died or failed, for so many times; `fatal`: the site gives the job up."""

    kind: ClassVar[str] = "trainer-trouble"
    restarts: int = 0
    fatal: bool = False
    error: str = in_text()

    def sentence(self) -> str:
        return f"{self.site}: {self.error}" + ("; the site gives up" if self.fatal else "; it tries again")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStandsOut(Happened):
    """The updates of a site are unlike those of others; `remark` says how."""

    kind: ClassVar[str] = "site-stands-out"
    remark: str = in_text()

    def sentence(self) -> str:
        return self.remark


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSaid(Happened):
    """A site has said statistics of its data, of so many examples, or why it cannot; `reason` says it then."""

    kind: ClassVar[str] = "data-said"
    examples: int | None = None
    reason: str = in_text()

    def sentence(self) -> str:
        if self.reason:
            return f"{self.site} could not say statistics of its data: {self.reason}"
        if self.examples is None:
            return f"{self.site} has no statistics to give"
        return f"{self.site} said statistics of its data, about {self.examples:,} examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSuspect(Happened):
    """A data check has found something: a fault or a warning."""

    kind: ClassVar[str] = "data-suspect"
    severity: str = ""
    what: str = in_text()

    def sentence(self) -> str:
        return f"{self.severity}: {self.what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteInfluence(Happened):
    """A site counts for far less or more in the versions than its share is, or does so no longer; 0 to 1 both."""

    kind: ClassVar[str] = "site-influence"
    influence: float = 0.0
    share: float = 0.0

    def sentence(self) -> str:
        times = self.influence / self.share if self.share else 0.0
        text = f"{self.influence:.1%} of what the last versions apply is from it, its share is {self.share:.1%}"
        if times > FAR_ABOVE:
            return f"{self.site} counts {times:.1f} times as much as it should: {text}; {FASTER}"
        if times < FAR_BELOW:
            return f"{self.site} counts {times:.2f} times as much as it should: {text}; {SLOWER}"
        return f"{self.site} counts about as much as it should again: {text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteAuditDiffers(Happened):
    """The audit log of a site is not that of the head it sent before. `known`, `came`: the two heads."""

    kind: ClassVar[str] = "site-audit-differs"
    known: str = ""
    came: str = ""

    def sentence(self) -> str:
        return (
            f"{self.site}: its audit log was cut, rewritten or begun anew: it was at {short(self.known)}, now it says"
            f" {short(self.came)}; `fedbus audit verify` there says more"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadDropped(Happened):
    """An upload of a site was given up; `what` says which and why."""

    kind: ClassVar[str] = "upload-dropped"
    what: str = in_text()

    def sentence(self) -> str:
        return self.what


def short(head: str) -> str:
    """The head of an audit log as people compare it: its sequence and eight digits."""
    sequence, _, sha256 = head.partition(":")
    return f"{sequence}:{sha256[:8]}"
