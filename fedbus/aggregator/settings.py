"""Settings of the aggregator daemon."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar

from pydantic import Field

from fedbus.runtime.settings import (
    KEEP_DAYS,
    LOOPBACK,
    YEAR_S,
    Address,
    DaemonSettings,
    KeepDays,
    Port,
    Seconds,
    Threads,
    default_home,
)
from fedbus.trust.suites import SealSuite

LOGIN = "aggregator"


class AggregatorSettings(DaemonSettings):
    """`[aggregator]` in the TOML file; durations in seconds."""

    table: ClassVar[str] = "aggregator"
    flags: ClassVar[Mapping[str, str | None]] = MappingProxyType(
        {
            "score_timeout_s": None,
            "checkpoint_interval_s": None,
            "partial_timeout_s": None,
            "threads": None,
            "nobody_left_s": None,
            "forget_after_days": None,
            "keep_bytes": None,
            "settle_s": None,
            "quiet_s": None,
            "joiners_read_earlier": None,
            "seal_suite": None,
            "fault": None,
            "audit_keep_days": None,
            "metrics_port": None,
            "metrics_host": None,
        }
    )

    state_dir: Path = Field(default_factory=lambda: default_home() / "aggregator")
    params_dir: Path | None = None
    score_timeout_s: Seconds = 60.0
    checkpoint_interval_s: Annotated[float, Field(ge=0, le=YEAR_S)] = 5.0
    partial_timeout_s: Seconds = 3600.0
    """After so long without a new chunk what came of an update is dropped; its site sends it again when it is back."""
    nobody_left_s: Seconds = 90.0
    """After so long with too few sites that have not declined a job has failed. Every job waits for sites as long."""
    threads: Threads = 1
    keep_updates: bool = False
    """Keep every folded update in STATE_DIR/archive, for `fedbus replay` from version 0: disk that only grows."""

    joiners_read_earlier: bool = True
    """With kits: whether a site that comes to a job may read what was made before; else the log begins anew for it."""

    forget_after_days: Annotated[float, Field(gt=0, le=36_600)] | None = None
    """Jobs that ended so long ago are forgotten, as by `fedbus rm`; never when it is not given."""
    keep_bytes: Annotated[int, Field(ge=0)] | None = None
    """Above so many bytes of ended jobs the oldest of them are forgotten; no limit when it is not given."""

    audit_keep_days: KeepDays = KEEP_DAYS
    """No line of the audit log is kept for longer; months go whole, so that each stays for a month less at least."""

    metrics_port: Port = 0
    """Where `/metrics` is served for Prometheus, to whoever reaches it; 0: nowhere."""
    metrics_host: Address = LOOPBACK
    """The address that `/metrics` is served on."""

    web: bool = False
    """Whether the status page runs in this process; all else of it stands in `[web]`, see `fedbus.web.settings`."""

    settle_s: Annotated[float, Field(ge=0, le=YEAR_S)] = 1.0
    """How old a job's stream must be before it is used: a younger one is lost when a RabbitMQ 3.10 node is killed."""
    quiet_s: Annotated[float, Field(gt=0, le=YEAR_S)] = 1.0
    """How long nothing has come into the queue of a job that has ended before it is deleted."""

    seal_suite: SealSuite = "x25519"
    """With a kit, what sites seal their updates to; `mlkem768-x25519` also holds against quantum computers."""

    @property
    def initial_params_dir(self) -> Path:
        """Where `initial_params` of a job spec are looked up."""
        return self.params_dir or self.state_dir / "params"
