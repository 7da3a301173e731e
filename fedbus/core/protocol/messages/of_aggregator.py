"""What the aggregator says: to sites on exchange fedbus.control, to whoever watches on fedbus.events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedbus.core.protocol.messages.base import UNSAID, JobState, Outcome, UpdateId
from fedbus.core.protocol.statistics import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RollCall:
    """The aggregator has (re)started: every site answers with Join."""

    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedSubmission:
    """A submit as its submitter has signed it: properties, headers and body of its message, for the sites to check."""

    routing_key: str
    type: str
    message_id: str
    correlation_id: str
    headers: Mapping[str, str | int]
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOffer:
    """A job is offered to a site. `spec` is the validated job spec as JSON-able data.

    submitter: the login that submitted it, so that a site can be fair; "" from an earlier release.
    seal_keys: what the site seals to, base64 by the suite's number, see `fedbus.trust.sealing`; none without kits.
    submission: the signed submit, None without kits; of a job that the aggregator has made after another one, which is
    `follows` then, it is the submit of that one.
    """

    job: str
    spec: Mapping[str, Any]
    submitter: str = ""
    seal_keys: Mapping[str, str] = field(default_factory=dict, metadata=UNSAID)
    submission: SignedSubmission | None = field(default=None, metadata=UNSAID)
    follows: str = field(default="", metadata=UNSAID)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialParamsRequest:
    """The site that receives it creates the job's initial params and sends them as an update of kind `initial`.

    layout_only: the params come from a file; those of the update may be zeros, which cost nothing.
    """

    job: str
    layout_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """The job's model log exists; a site that has accepted follows it from now on.

    A site that sees a new `session` of the aggregator sends again whatever still awaits its receipt.
    log: the stream's name, told to the sites of the job only; "" for the one that follows from the job, as the
    aggregators of earlier releases have it.
    keys: the epochs of the log that the site may read, sealed to it, see `fedbus.trust.epochs`; "" without kits.
    version: one that is in the log by now; what ends before it is an old log. -1: not said.
    """

    job: str
    session: str
    log: str = ""
    keys: str = field(default="", metadata=UNSAID)
    version: int = field(default=-1, metadata=UNSAID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one update. Also part of the version that names it, so that a lost receipt is found again.

    rebase: the site has been away for long; what it trains from a version before this one is worth nothing any more.
    """

    job: str
    update_id: str
    outcome: Outcome
    reason: str = ""
    staleness: int = 0
    rebase: int | None = None

    def __post_init__(self) -> None:
        UpdateId.parse(self.update_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBudget:
    """A site makes so many local steps from now on, for its trainings to take about as long as the others'.

    Not kept by anybody: a site that was restarted makes the job's `local.steps` until it is told again.
    """

    job: str
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a budget of {self.steps} steps: at least 1 is made")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendRequest:
    """Chunks of an update whose manifest came are missing, and nothing more comes: its site publishes all of it again.

    A site that has no such update any more ignores it.
    """

    job: str
    update_id: str

    def __post_init__(self) -> None:
        UpdateId.parse(self.update_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Training is over: every site of the job scores this version on its own test data, and waits for the end.

    intervals: say how sure the metrics are, too. model: what this model is called among those that are compared, -1:
    nothing; against: say the differences to that one, which was scored before. losses: say those of its own labelled
    examples by class, of classes with so many examples at least; 0: say none. A site of the release before says none.
    local: send your newest local model, too, if you share it.
    """

    job: str
    version: int
    intervals: bool = False
    model: int = -1
    against: int = -1
    losses: int = 0
    local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsRequest:
    """The site computes statistics of its data by this plan. An answer to an earlier `id` counts no more."""

    job: str
    id: str
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """The job is over; sites stop training and drop its files."""

    job: str
    state: JobState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForgotten:
    """The job is over and deleted at the aggregator; what a site has kept for it is of no use to anybody."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRenewed:
    """The federation has renewed the site's certificate, for the key that the site has; all as PEM.

    authorities: the CAs that count now. endorsement: the newest one's key, signed by the CA before it; may be empty.
    """

    site: str
    certificate: str
    authorities: str = ""
    endorsement: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, for people and for programs that watch: see `core.protocol.events` for the kinds."""

    at: float
    job: str
    site: str
    kind: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationLists:
    """Whose signatures count no more: the lists (PEM) of all CAs that count, each signed by its own."""

    lists: str
