"""The hospital's `policy.toml`, read whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import tomllib
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fedbus.core.spec.site_policy import HospitalPolicy, parse_policy
from fedbus.core.words import counted
from fedbus.errors import PolicyError

MOST_BYTES = 1 << 18
MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """A policy as it was read. digest: of the file's bytes, 16 hex digits; zone: that of its hours."""

    policy: HospitalPolicy
    digest: str
    zone: tzinfo


def read_policy(path: Path) -> PolicyFile:
    """Read and check a policy. Raises PolicyError with everything that is wrong."""
    content = _content(path)
    try:
        data: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as exc:
        raise PolicyError(f"{path}: not valid TOML: {exc}", said="it is no valid TOML") from exc
    found = parse_policy(data)
    if isinstance(found, list):
        shown = [f"  {one.path or 'policy'}: {one.message}" for one in found[:MOST_PROBLEMS]]
        more = [f"  and {len(found) - MOST_PROBLEMS} more"] * (len(found) > MOST_PROBLEMS)
        raise PolicyError("\n".join([f"{path}:", *shown, *more]), said=f"{counted(len(found), 'key')} wrong or missing")
    return PolicyFile(policy=found, digest=hashlib.sha256(content).hexdigest()[:16], zone=_zone(found.hours.zone, path))


def _content(path: Path) -> bytes:
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold the daemon
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise PolicyError(f"{path}: expected a file with the site's policy", said="it is no file")
            content = file.read(MOST_BYTES + 1)
    except OSError as exc:
        said = "the file is missing" if isinstance(exc, FileNotFoundError) else "the file is unreadable"
        raise PolicyError(f"{path}: cannot be read: {exc.strerror}", said=said) from exc
    if len(content) > MOST_BYTES:
        raise PolicyError(f"{path}: a policy has at most {MOST_BYTES} bytes", said="the file is too large")
    return content


def _zone(name: str, path: Path) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        text = f"{path}: hours.zone: this machine knows no time zone {name!r}; install tzdata, or correct the name"
        raise PolicyError(text, said="its time zone is not known at the site") from exc
