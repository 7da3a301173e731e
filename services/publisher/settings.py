"""Settings of the submitter."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fedbus.runtime.settings import DaemonSettings

LOGIN = "submitter"


class PublisherSettings(DaemonSettings):
    """`[submitter]` in the TOML file; durations in seconds."""

    table: ClassVar[str] = "submitter"

    timeout_s: Annotated[float, Field(gt=0)] = 10.0
