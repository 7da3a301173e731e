"""Every message on the bus, as a frozen dataclass that cannot be built wrong.

What lives here: the vocabulary of the protocol. What may not: bytes (see `wire`), AMQP (see `fedbus.bus`), tensors.

    who publishes      exchange          messages
    site               fedbus.sites      Join, SiteStatus, Leave, OfferAnswer, ScoreAnswer, StatisticsAnswer,
                                         ResyncRequest, TrainerTrouble
    site               fedbus.updates    chunks of an update, then UpdateManifest
    aggregator         fedbus.control    RollCall, JobOffer, InitialParamsRequest, JobStarted, Receipt, StepBudget,
                                         ResendRequest, ScoreRequest, StatisticsRequest, JobEnded, JobForgotten,
                                         CertificateRenewed, RevocationLists
    aggregator         fedbus.models     chunks of a version, then VersionManifest
    aggregator         fedbus.events     Event
    submitter          fedbus.jobs       a job spec, or what stands in `requests`, as plain JSON (any AMQP client)

An update is its chunks plus one manifest, sent last: the manifest commits the transfer. The same holds for a version.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from fedbus.core.protocol.activities import Activity, phrase_of
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.spread import Spreads
from fedbus.core.protocol.statistics import ClassLoss, Plan, Statistics

NAME = re.compile(r"[a-z0-9-]{1,40}")
SHA256 = re.compile(r"([0-9a-f]{64})?")
AUDIT_HEAD = re.compile(r"([1-9][0-9]{0,17}:[0-9a-f]{64})?")
UNSAID: Mapping[str, bool] = MappingProxyType({"unsaid": True})
"""Metadata of a field that JSON leaves out while it has its default: bytes without it are those of earlier releases."""
JOB_HEADER = "job"
"""Header of a submit: the id that its job gets."""


def check_name(what: str, name: str) -> str:
    """Return `name` when it may be a site, job or user name, raise ValueError otherwise."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r} must be 1 to 40 of a-z, 0-9 and '-': it is used in routing keys")
    return name


def check_sha256(what: str, digits: str) -> None:
    """Raise ValueError unless these are the hex digits of a SHA-256, or none."""
    if not SHA256.fullmatch(digits):
        raise ValueError(f"{what} must be 64 hex digits or empty, got {len(digits)} characters")


def job_id(name: str, suffix: str) -> str:
    """The id of a job of this name: the name, cut, and what tells it from others, eight hex digits."""
    return f"{name[:31].rstrip('-')}-{suffix}"


def id_of_submit(name: str, message_id: str) -> str:
    """The id of a job that was submitted without one: a submit that comes twice is one job."""
    return job_id(name, hashlib.blake2b(message_id.encode(), digest_size=4).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateId:
    """Names one update for ever: the site, the incarnation of its outbox and a sequence number in it."""

    site: str
    incarnation: str
    sequence: int

    def __post_init__(self) -> None:
        check_name("site", self.site)
        if not re.fullmatch(r"[0-9a-f]{8}", self.incarnation) or self.sequence < 0:
            raise ValueError(f"update id {self.site}:{self.incarnation}:{self.sequence} is malformed")

    def __str__(self) -> str:
        return f"{self.site}:{self.incarnation}:{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> UpdateId:
        """Parse `site:incarnation:sequence`; ValueError when it is not one."""
        parts = text.split(":")
        if len(parts) != 3 or not re.fullmatch(r"0|[1-9][0-9]{0,17}", parts[2]):
            raise ValueError(f"update id {text!r} is not site:incarnation:sequence")
        return cls(site=parts[0], incarnation=parts[1], sequence=int(parts[2]))


class JobState(StrEnum):
    SUBMITTED = "submitted"
    WAITING = "waiting for sites"
    RUNNING = "running"
    FINISHING = "finishing"
    FINISHED = "finished"
    FAILED = "failed"
    ABORTED = "aborted"

    @property
    def ended(self) -> bool:
        return self in (JobState.FINISHED, JobState.FAILED, JobState.ABORTED)


class Outcome(StrEnum):
    FOLDED = "folded"
    REFUSED = "refused"


# ------------------------------------------------------------------ site → aggregator, fedbus.sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A site daemon says that it is here. `session` differs for each process, `tasks` are those it allows.

    seal_keys: what the aggregator seals to for this site, base64 by the suite's number; none without a kit.
    """

    site: str
    session: str
    tasks: tuple[str, ...]
    fedbus_version: str
    device: str = "cpu"
    seal_keys: Mapping[str, str] = field(default_factory=dict, metadata=UNSAID)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobActivity:
    """What a site does for one job right now.

    detail: what varies in it, such as the version that is loaded, or what else people should know.
    device: what its trainer computes on, such as 'cuda:1'; empty while there is none. new_labels: how many labels the
    site's data source has brought since the task was last trained there; -1: there is no source, or it is not told.
    """

    job: str
    activity: Activity
    version: int
    step: int = 0
    steps: int = 0
    detail: str = ""
    device: str = ""
    new_labels: int = -1

    @property
    def phrase(self) -> str:
        """The activity for people, such as 'loading version 12'."""
        return phrase_of(self.activity, self.detail)[0]

    @property
    def note(self) -> str:
        """What people should know beside the phrase; may be empty."""
        return phrase_of(self.activity, self.detail)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStatus:
    """Sent every status interval; renews the site's lease of `lease_s` seconds.

    said_at: seconds since the epoch by the site's clock, which is only told to people, see `skew`; 0: not said.
    """

    site: str
    session: str
    lease_s: float
    jobs: tuple[JobActivity, ...] = ()
    said_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A site says goodbye; nobody waits for it from now on."""

    site: str
    session: str
    reason: str = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferAnswer:
    """A site accepts or declines a job, with the reason when it declines.

    layout: the digest of the params that its task makes; empty until the task is open, then it accepts once more.
    """

    site: str
    job: str
    accepted: bool
    reason: str = ""
    layout: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreAnswer:
    """A site's evaluation of one version on its own test data.

    not_finite: names of metrics that came out as NaN or infinity and are left out of `metrics`. failed: what kept the
    site from scoring, in words that say nothing of its data; the metrics are empty then.

    spreads: how sure the metrics are, where intervals were asked for; differences: of this model to the one that it is
    compared to, on the same test cases. Both by metric. losses: of its own labelled examples by class, where the job
    checks data. local: the id of the update that brings the site's local model; empty: none comes. asked: whether it
    answers a ScoreRequest, or was made before one came; None: a site of the release before does not say.
    """

    site: str
    job: str
    version: int
    metrics: Mapping[str, float]
    num_examples: int
    not_finite: tuple[str, ...] = ()
    failed: str = ""
    spreads: Spreads = field(default_factory=dict)
    differences: Spreads = field(default_factory=dict)
    losses: Mapping[str, ClassLoss] = field(default_factory=dict)
    local: str = ""
    asked: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsAnswer:
    """What a site says of its data, when it was asked.

    asked: the `id` of the request. statistics: None where its task has none to give, or it could not compute them;
    failed says why then, in words that say nothing of its data.
    """

    site: str
    job: str
    asked: str
    statistics: Statistics | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResyncRequest:
    """A site cannot follow the model log (records lost, digest differs) and asks for a snapshot."""

    site: str
    job: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerTrouble:
    """A trainer process died or reported an error; the site retries by itself unless `fatal`."""

    site: str
    job: str
    error: str
    restarts: int
    fatal: bool = False


# ------------------------------------------------------------------ aggregator → sites, fedbus.control


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
class RevocationLists:
    """Whose signatures count no more: the lists (PEM) of all CAs that count, each signed by its own."""

    lists: str


# ------------------------------------------------------------------ tensors: updates up, versions down


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One frame of an update (`part` 'update') or of a version ('delta' or 'snapshot').

    `transfer` is the update id or the version as text; `body` is one frame of `core.protocol.frames`.
    """

    job: str
    transfer: str
    part: str
    index: int
    count: int
    body: bytes


class UpdateKind(StrEnum):
    """What an update holds: a delta, a job's first params, or a site's whole local model at the end of a job."""

    DELTA = "delta"
    INITIAL = "initial"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateManifest:
    """Commits one update. `layout` is set for a job's first params.

    audit: the head of the site's audit log, sequence:sha256, whose newest line then is that of this update; "": a
    release before, which had none.
    """

    job: str
    update_id: str
    kind: UpdateKind
    base_version: int
    effort: Effort
    layout_digest: str
    frames: int
    body_bytes: int
    layout: Mapping[str, Any] | None = None
    audit: str = field(default="", metadata=UNSAID)

    def __post_init__(self) -> None:
        if not AUDIT_HEAD.fullmatch(self.audit):
            raise ValueError(f"audit must be SEQUENCE:64 hex digits or empty, got {len(self.audit)} characters")


DELTA, SNAPSHOT = "delta", "snapshot"
"""The parts of a version in the model log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Frames and bytes of one part of a version.

    sha256: over its frames as they are before sealing, in order, in hex digits; "" where nobody has a kit.
    """

    frames: int
    body_bytes: int
    sha256: str = field(default="", metadata=UNSAID)

    def __post_init__(self) -> None:
        check_sha256("sha256", self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionManifest:
    """Commits one version in the model log; published alone, after its chunks were confirmed.

    `delta` leads from version - 1 to version, `snapshot` stands alone; at least one is there. `digest` is that of the
    hidden params. `layout` is set whenever `snapshot` is. `snapshot_version` and `snapshot_back` say where a late
    joiner finds the newest snapshot: its first chunk was published so many records before this manifest; 0: not said.
    `snapshot_at` (seconds since the epoch, of the aggregator's clock) is what sites of earlier releases go by.
    `chain` names this version and all before it, see `chain`; "" where nobody has a kit.
    """

    job: str
    version: int
    digest: str
    delta: Part | None
    snapshot: Part | None
    snapshot_version: int
    snapshot_at: float
    snapshot_back: int = 0
    receipts: tuple[Receipt, ...] = ()
    layout: Mapping[str, Any] | None = None
    chain: str = field(default="", metadata=UNSAID)

    def __post_init__(self) -> None:
        check_sha256("chain", self.chain)


# ------------------------------------------------------------------ submitters and watchers


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, for people and for programs that watch: see `core.protocol.events` for the kinds."""

    at: float
    job: str
    site: str
    kind: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
