"""Every message on the bus, as a frozen dataclass that cannot be built wrong.

The vocabulary of the protocol: `of_sites`, `of_aggregator`, `transfers` of tensors; `base` has names, ids and states.
What may not live here: bytes (see `wire`), AMQP (see `fedbus.bus`), tensors.

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

from fedbus.core.protocol.messages.base import (
    JOB_HEADER,
    NAME,
    JobState,
    Outcome,
    UpdateId,
    check_name,
    check_sha256,
    id_of_submit,
    job_id,
)
from fedbus.core.protocol.messages.of_aggregator import (
    CertificateRenewed,
    Event,
    InitialParamsRequest,
    JobEnded,
    JobForgotten,
    JobOffer,
    JobStarted,
    Receipt,
    ResendRequest,
    RevocationLists,
    RollCall,
    ScoreRequest,
    SignedSubmission,
    StatisticsRequest,
    StepBudget,
)
from fedbus.core.protocol.messages.of_sites import (
    JobActivity,
    Join,
    Leave,
    OfferAnswer,
    ResyncRequest,
    ScoreAnswer,
    SiteStatus,
    StatisticsAnswer,
    TrainerTrouble,
)
from fedbus.core.protocol.messages.transfers import (
    DELTA,
    SNAPSHOT,
    Chunk,
    Part,
    UpdateKind,
    UpdateManifest,
    VersionManifest,
)

__all__ = [
    "DELTA",
    "JOB_HEADER",
    "NAME",
    "SNAPSHOT",
    "CertificateRenewed",
    "Chunk",
    "Event",
    "InitialParamsRequest",
    "JobActivity",
    "JobEnded",
    "JobForgotten",
    "JobOffer",
    "JobStarted",
    "JobState",
    "Join",
    "Leave",
    "OfferAnswer",
    "Outcome",
    "Part",
    "Receipt",
    "ResendRequest",
    "ResyncRequest",
    "RevocationLists",
    "RollCall",
    "ScoreAnswer",
    "ScoreRequest",
    "SignedSubmission",
    "SiteStatus",
    "StatisticsAnswer",
    "StatisticsRequest",
    "StepBudget",
    "TrainerTrouble",
    "UpdateId",
    "UpdateKind",
    "UpdateManifest",
    "VersionManifest",
    "check_name",
    "check_sha256",
    "id_of_submit",
    "job_id",
]
