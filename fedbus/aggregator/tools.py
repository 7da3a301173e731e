"""What every job uses and the daemon owns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fedbus.aggregator.site_numbers import SiteNumbers
from fedbus.aggregator.voice.announcer import Announcer
from fedbus.aggregator.workers import Disk, Worker
from fedbus.audit.writer import Audit, NoAudit
from fedbus.bus.post import Post
from fedbus.core.job.membership import Membership
from fedbus.runtime.faults import Reached, nothing
from fedbus.runtime.telemetry import Telemetry
from fedbus.store.ledger import Ledger


async def everybody(site: str) -> bool:
    """Every site is enrolled."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Shared by all jobs; durations in seconds. `session` differs for each process of the aggregator.

    compute: of a job, the thread of its tensors; outside of the jobs, the one that reads what people ask for. saving:
    of a job, the thread that writes its checkpoints.
    enrolled: whether the broker has a queue for a site. numbers: of the sites, where there are kits.
    """

    session: str
    ledger: Ledger
    store: Worker
    compute: Worker
    saving: Worker
    post: Post
    announcer: Announcer
    membership: Membership
    score_timeout_s: float
    checkpoint_interval_s: float
    nobody_left_s: float = 90.0
    enrolled: Callable[[str], Awaitable[bool]] = everybody
    numbers: SiteNumbers | None = None
    audit: Audit = field(default_factory=NoAudit)
    telemetry: Telemetry = field(default_factory=Telemetry)
    disk: Disk = field(default_factory=Disk)
    reached: Reached = nothing
