"""One message of each kind that a site says or hears in an ordinary job, as the document shows them."""

from __future__ import annotations

from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.wire import Message

_JOB, _SITE = "heart-0c1d2e3f", "cleveland"
_UPDATE = m.UpdateId(site=_SITE, incarnation="5f0c9a31", sequence=7)
_LAYOUT = "8a3f5be2c07d9144"

EXAMPLES: tuple[Message, ...] = (
    m.Join(site=_SITE, session="1d2c3b4a", tasks=("heart_disease",), fedbus_version="0.1.0"),
    m.SiteStatus(
        site=_SITE,
        session="1d2c3b4a",
        lease_s=30.0,
        jobs=(m.JobActivity(job=_JOB, activity=Activity.TRAINING, version=3, step=12, steps=40),),
        said_at=1_790_000_000.0,
    ),
    m.Leave(site=_SITE, session="1d2c3b4a"),
    m.OfferAnswer(site=_SITE, job=_JOB, accepted=True, layout=_LAYOUT),
    m.ScoreAnswer(site=_SITE, job=_JOB, version=3, metrics={"accuracy": 0.81, "loss": 0.42}, num_examples=91),
    m.StatisticsAnswer(site=_SITE, job=_JOB, asked="6b1f", failed="this site computes no statistics"),
    m.ResyncRequest(site=_SITE, job=_JOB, reason="version 9 does not follow version 3"),
    m.TrainerTrouble(site=_SITE, job=_JOB, error="the data folder is empty", restarts=1, fatal=True),
    m.RollCall(session="77aa00bb"),
    m.JobOffer(job=_JOB, spec={"name": "heart", "task": "heart_disease"}, submitter="submitter"),
    m.InitialParamsRequest(job=_JOB),
    m.JobStarted(job=_JOB, session="77aa00bb", log=f"fedbus.models.{_JOB}.9f0e", version=0),
    m.Receipt(job=_JOB, update_id=str(_UPDATE), outcome=m.Outcome.FOLDED, staleness=1),
    m.StepBudget(job=_JOB, steps=20),
    m.ResendRequest(job=_JOB, update_id=str(_UPDATE)),
    m.ScoreRequest(job=_JOB, version=40),
    m.JobEnded(job=_JOB, state=m.JobState.FINISHED, reason="version 40 was reached"),
    m.JobForgotten(job=_JOB),
    m.UpdateManifest(
        job=_JOB,
        update_id=str(_UPDATE),
        kind=m.UpdateKind.DELTA,
        base_version=3,
        effort=Effort(num_examples=212, steps=40, seconds=0.4, metrics={"loss": 0.47}),
        layout_digest=_LAYOUT,
        frames=1,
        body_bytes=108,
    ),
    m.VersionManifest(
        job=_JOB,
        version=4,
        digest="0f3d1c2b4a596877",
        delta=m.Part(frames=1, body_bytes=108),
        snapshot=None,
        snapshot_version=0,
        snapshot_at=1_790_000_000.0,
        snapshot_back=14,
        receipts=(m.Receipt(job=_JOB, update_id=str(_UPDATE), outcome=m.Outcome.FOLDED, staleness=1),),
    ),
)
