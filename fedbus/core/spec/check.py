"""The spec of a job that checks the sites' data: statistics are compared, nothing is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedbus.core.protocol.statistics import LEAST, MOST_BINS
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.sections import Seconds
from fedbus.core.words import counted


class CheckSpec(JobSpec):
    """One job that checks data."""

    kind: Literal["data-check"]
    """Every site computes statistics of its data, which are compared; none is trained."""
    minimum: Annotated[int, Field(ge=1, le=1000)] = LEAST
    """Counts below it are withheld by every site; a site may raise it for itself."""
    bins: Annotated[int, Field(ge=1, le=MOST_BINS)] = 10
    """Bins of a column's histogram, from the least to the highest value that is possible in it."""
    duplicates: bool = True
    """Sites send salted prints of their examples, so that the same ones at two sites are found."""
    answer_within_s: Seconds = 600.0
    """A site that says nothing for so long is waited for no more."""
    wall_time_s: Seconds | None = None
    """The job ends by then, with what was answered; null waits for every site that is there."""

    def lines(self) -> list[tuple[str, str]]:
        prints = "and salted prints of its examples" if self.duplicates else "and no prints of examples"
        by = "" if self.wall_time_s is None else f", or after {self.wall_time_s:g} s"
        return [
            ("starts", f"when {counted(self.least_sites, 'site')} accepted"),
            ("each site", f"sends statistics of its data, counts below {self.minimum} withheld, {prints}"),
            ("stops", f"when every site that is there has answered{by}"),
        ]
