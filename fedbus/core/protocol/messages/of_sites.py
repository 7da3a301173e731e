"""What a site says: exchange fedbus.sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedbus.core.protocol.activities import Activity, phrase_of
from fedbus.core.protocol.messages.base import UNSAID
from fedbus.core.protocol.spread import Spreads
from fedbus.core.protocol.statistics import ClassLoss, Statistics


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
    memory_used_bytes, memory_bytes: of the memory of that device while it trains; 0: it is no GPU.
    """

    job: str
    activity: Activity
    version: int
    step: int = 0
    steps: int = 0
    detail: str = ""
    device: str = ""
    new_labels: int = -1
    memory_used_bytes: int = field(default=0, metadata=UNSAID)
    memory_bytes: int = field(default=0, metadata=UNSAID)

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
