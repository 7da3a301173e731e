"""What a site does for a job: an activity of this list, and a detail where something varies.

A site of another release may say a phrase that is not in the list, or, one of the release before, one with the detail
in it ('loading version 12'). It is read as `lifted` says, so that people read what the site said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Activity(StrEnum):
    """The values are phrases for people; the detail of those in OF_VERSION is the number that ends the phrase."""

    STARTING = "starting"
    QUEUED = "queued"
    LOADING_DATA = "loading data"
    MAKING_INITIAL = "making initial params"
    LOADING = "loading version"
    TRAINING = "training"
    SCORING = "scoring"
    EXAMINING = "computing statistics of its data"
    WAITING_FOR_MODEL = "waiting for the model"
    WAITING_FOR_VERSION = "waiting for version"
    WAITING_FOR_NEXT = "waiting for the next version"
    WAITING_FOR_RECEIPT = "waiting for a receipt"
    WAITING_FOR_END = "waiting for the end of the job"
    WAITING_FOR_LABELS = "waiting for the first labels"
    WAITING_FOR_ROOM = "waiting for room on the disk"
    PAUSED = "paused by its policy"
    RESTARTING = "restarting the trainer"
    GAVE_UP = "gave up"
    NO_PART = "takes no part"
    OTHER = "other"
    """Something that this release has no name for; the detail says it."""


OF_VERSION = frozenset({Activity.LOADING, Activity.WAITING_FOR_VERSION})
_WITH_VERSION = re.compile(rf"({'|'.join(sorted(OF_VERSION))}) ([0-9]+)")


def phrase_of(activity: Activity, detail: str) -> tuple[str, str]:
    """The activity for people, and what of the detail is left to say beside it."""
    if activity is Activity.OTHER:
        return detail or str(activity), ""
    if activity in OF_VERSION and detail:
        return f"{activity} {detail}", ""
    return str(activity), detail


def lifted(status: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a status of whatever release, with activities of this list."""
    jobs = status.get("jobs")
    return dict(status) | ({"jobs": [_lifted(job) for job in jobs]} if isinstance(jobs, list) else {})


def _lifted(job: Any) -> Any:
    """What is no activity at all stays as it is, for the reader to refuse."""
    phrase, detail = (job.get("activity"), job.get("detail", "")) if isinstance(job, dict) else (None, None)
    if not isinstance(phrase, str) or not isinstance(detail, str) or phrase in _KNOWN:
        return job
    if not detail and (found := _WITH_VERSION.fullmatch(phrase)):
        return job | {"activity": found[1], "detail": found[2]}
    said = f"{phrase} ({detail})" if phrase and detail else phrase or detail
    return job | {"activity": str(Activity.OTHER), "detail": said}


_KNOWN = frozenset(map(str, Activity))
