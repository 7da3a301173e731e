"""Settings of the submitter."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from fedbus.runtime.settings import DaemonSettings, Seconds

LOGIN = "submitter"


class SubmitterSettings(DaemonSettings):
    """`[submitter]` in the TOML file; durations in seconds."""

    table: ClassVar[str] = "submitter"
    flags: ClassVar[Mapping[str, str | None]] = MappingProxyType(
        {"kit": None, "timeout_s": None, "log_level": None, "log_format": None}
    )

    timeout_s: Seconds = 10.0
