"""What messages are made of: names that may stand in routing keys, ids, states."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

NAME = re.compile(r"[a-z0-9-]{1,40}")
SHA256 = re.compile(r"([0-9a-f]{64})?")
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
