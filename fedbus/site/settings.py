"""Settings of the site daemon."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from fedbus.core.protocol.messages import NAME
from fedbus.core.protocol.statistics import LEAST
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
from fedbus.sources.settings import SourceSettings


class SiteSettings(DaemonSettings):
    """`[site]` in the TOML file; durations in seconds.

    `tasks` limits what jobs may run here (all installed tasks when it is not given). `min_contributors`: only jobs that
    promise to make every version of updates of so many sites at least; `min_batch_size`: only jobs whose local batches
    are as large. `min_test_cases`: of fewer test cases no interval of a score leaves. `share_local_model`: at the end
    of a job that asks for it, the newest local model leaves, as it is. `slowdown` makes training that many times slower
    and `step_delay_s` adds a pause to each step: for demonstrations and tests. `score_limit_s` is how long the scores
    at the end of a job may take; it should be below the aggregator's `score_timeout_s`, so that a task which never
    comes back is said and not waited for. `patience_s` is how long a job whose trainer fails again and again is tried
    before the site gives it up. `max_jobs` are trained at once (one for each GPU, or one, when it is not given); others
    wait for their turn. `ranks` processes train a job together, each with a device and the data of its own: as many as
    there are GPUs that no other job needs when it is not given, and 1 without GPUs. `keep_models`: of so many jobs that
    ended last the model stays here, for the site's own report. In a data check `min_count` is the least count that
    leaves, if the job's is lower, and `share_prints` lets salted prints of examples leave. `refuse_on`: findings on the
    site's own data, kinds or a severity (fault, warning), with which it trains for no job. `source` is the table
    `[site.source]`: where new labels come from. `audit_keep_days`: no line of the audit log is kept for longer; months
    go whole, so that each stays for a month less at least. `metrics_port`: where `/metrics` is served for Prometheus,
    to whoever reaches `metrics_host`; 0: nowhere.
    """

    table: ClassVar[str] = "site"
    flags: ClassVar[Mapping[str, str | None]] = MappingProxyType(
        {
            "site_name": "--name",
            "site_data": "--data",
            "site_state_dir": "--state-dir",
            "tasks": "--task",
            "score_limit_s": None,
            "patience_s": None,
            "min_count": None,
            "share_prints": None,
            "refuse_on": None,
            "keep_models": None,
            "share_local_model": None,
            "min_test_cases": None,
            "fault": None,
            "source": None,
            "data_tags": None,
            "trainer_cage": None,
            "audit_keep_days": None,
            "metrics_port": None,
            "metrics_host": None,
        }
    )

    site_name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
    site_data: Path
    site_state_dir: Path | None = None
    policy: Path | None = None
    data_tags: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] | None, NoDecode] = None
    tasks: Annotated[tuple[str, ...] | None, NoDecode] = None
    trainer_cage: bool | None = None
    device: str = "auto"
    threads: Threads = 1
    min_contributors: Annotated[int, Field(ge=1)] = 1
    min_batch_size: Annotated[int, Field(ge=1)] = 1
    share_local_model: bool = False
    min_test_cases: Annotated[int, Field(ge=2)] = 5
    max_jobs: Annotated[int, Field(ge=1, le=1000)] | None = None
    ranks: Annotated[int, Field(ge=1, le=64)] | None = None
    max_in_flight: Annotated[int, Field(ge=1, le=1000)] = 1
    min_count: Annotated[int, Field(ge=1, le=1000)] = LEAST
    share_prints: bool = True
    refuse_on: Annotated[tuple[str, ...] | None, NoDecode] = None
    keep_models: Annotated[int, Field(ge=0, le=1000)] = 3
    status_interval_s: Seconds = 10.0
    score_limit_s: Seconds = 50.0
    patience_s: Annotated[float, Field(ge=0, le=YEAR_S)] = 3600.0
    slowdown: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    step_delay_s: Annotated[float, Field(ge=0, le=YEAR_S)] = 0.0
    audit_keep_days: KeepDays = KEEP_DAYS
    metrics_port: Port = 0
    metrics_host: Address = LOOPBACK
    source: SourceSettings | None = None

    @field_validator("tasks", "refuse_on", "data_tags", mode="before")
    @classmethod
    def _tasks_by_comma(cls, value: object) -> object:
        """FEDBUS_TASKS=digits,heart_disease: the environment has no lists."""
        return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value

    @property
    def state_dir(self) -> Path:
        return self.site_state_dir or default_home() / "sites" / self.site_name

    @property
    def policy_path(self) -> Path | None:
        """The hospital's policy; None: there is none."""
        return self.policy or (None if self.kit is None else self.kit / "policy.toml")

    @property
    def lease_s(self) -> float:
        """Three missed status messages make a site lost."""
        return 3 * self.status_interval_s
