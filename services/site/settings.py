"""Settings of the site daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from fedbus.core.messages import NAME
from fedbus.runtime.settings import DaemonSettings, default_home


class SiteSettings(DaemonSettings):
    """`[site]` in the TOML file; durations in seconds.

    `tasks` limits what jobs may run here (all installed tasks when it is not given). `slowdown` makes training that
    many times slower and `step_delay_s` adds a pause to each step: for demonstrations and tests.
    """

    table: ClassVar[str] = "site"

    site_name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$")]
    site_data: Path
    site_state_dir: Path | None = None
    tasks: tuple[str, ...] | None = None
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] = 1
    max_in_flight: Annotated[int, Field(ge=1)] = 1
    status_interval_s: Annotated[float, Field(gt=0)] = 10.0
    slowdown: Annotated[float, Field(ge=1)] = 1.0
    step_delay_s: Annotated[float, Field(ge=0)] = 0.0

    @property
    def state_dir(self) -> Path:
        return self.site_state_dir or default_home() / "sites" / self.site_name

    @property
    def lease_s(self) -> float:
        """Three missed status messages make a site lost."""
        return 3 * self.status_interval_s
