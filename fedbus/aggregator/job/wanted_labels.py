"""A job that waits for new labels: what its sites tell with every status, and that it is said to people."""

from __future__ import annotations

import math
import time
from collections.abc import Collection

from fedbus.aggregator.tools import Tools
from fedbus.core.job.labels import labels_missing
from fedbus.core.job.training import TrainingJob
from fedbus.core.protocol import events
from fedbus.core.spec.training import TrainingSpec

SAY_AGAIN_S = 5.0


class WantedLabels:
    """Of one job that has not started."""

    def __init__(self, job: str, spec: TrainingSpec, *, life: TrainingJob, tools: Tools) -> None:
        self._job = job
        self._wanted = spec.min_new_labels
        self._life = life
        self._tools = tools
        self._said = ""
        self._said_at = -math.inf

    def missing(self, active: Collection[str]) -> str:
        """What of the labels is missing, in words; empty when enough sites are there and have enough of them."""
        if not self._wanted or not self._life.can_start(active):
            return ""
        views = {site: self._tools.membership.get(site) for site in active}
        activities = {site: view.activities.get(self._job) for site, view in views.items() if view is not None}
        told = {site: activity.new_labels for site, activity in activities.items() if activity is not None}
        return labels_missing(self._wanted, told)

    async def are_missing(self, active: Collection[str]) -> bool:
        """Whether any are; people are told when that has changed, at most every SAY_AGAIN_S."""
        text, now = self.missing(active), time.monotonic()
        self._life.lacks_labels = bool(text)
        if text and text != self._said and now - self._said_at >= SAY_AGAIN_S:
            self._said, self._said_at = text, now
            await self._tools.announcer.event(self._job, events.JobWaiting(what=text))
        return bool(text)
