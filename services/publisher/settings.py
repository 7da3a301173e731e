"""Settings of the submitter."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar

from pydantic import Field

from fedbus.runtime.settings import DaemonSettings

LOGIN = "submitter"


class PublisherSettings(DaemonSettings):
    """`[submitter]` in the TOML file; durations in seconds."""

    table: ClassVar[str] = "submitter"
    flags: ClassVar[Mapping[str, str | None]] = MappingProxyType(
        {"timeout_s": None, "log_level": None, "log_format": None}
    )

    timeout_s: Annotated[float, Field(gt=0)] = 10.0
