"""What a site looks at when Prometheus asks: its outbox, what it holds of each job, disk, broker, certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fedbus.runtime import gauges
from fedbus.runtime import metrics as n
from fedbus.runtime.metrics import Sample
from fedbus.site.adapters import Adapters
from fedbus.site.jobs import SiteJobs
from fedbus.site.settings import SiteSettings
from fedbus.store.files import bytes_below


class Gauges:
    """Of one site daemon; `jobs` gives None while it has not begun to serve."""

    def __init__(self, settings: SiteSettings, adapters: Adapters, *, jobs: Callable[[], SiteJobs | None]) -> None:
        self._state_dir = settings.state_dir
        self._adapters = adapters
        self._jobs = jobs

    async def look(self) -> list[Sample]:
        """Everything as it is now."""
        post, jobs = self._adapters.post, self._jobs()
        return [
            *await asyncio.to_thread(self._on_disk),
            *gauges.of_daemon(
                n.Of.SITE, self._adapters.links, certificate_ends=post.certificate_ends, lists_end=post.lists_end
            ),
            Sample(n.OUTBOX_UPDATES, 0 if jobs is None else jobs.unsettled),
            *(Sample(n.LOCAL_VERSION, version, (job,)) for job, version in (jobs.versions if jobs else {}).items()),
        ]

    def _on_disk(self) -> list[Sample]:
        size = sum(bytes_below(outbox) for outbox in (self._state_dir / "jobs").glob("*/outbox"))
        return [Sample(n.OUTBOX_BYTES, size), gauges.disk_free(self._state_dir)]
