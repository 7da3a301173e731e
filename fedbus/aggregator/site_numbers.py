"""The numbers of the federation's sites, by which the broker knows who may read a model log: from the kit's roster.

The roster is read again when it has changed. One that cannot be read changes nothing but for a line in the log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import structlog

from fedbus.bus.log_readers import may_read, readers_of
from fedbus.errors import TrustError
from fedbus.trust.roster import ROSTER, Roster

log = structlog.get_logger()


class SiteNumbers:
    """Of one federation. Raises TrustError when the roster cannot be read at the start."""

    def __init__(self, kit: Path) -> None:
        self._kit = kit
        self._seen = self._stamp()
        self._numbers: Mapping[str, int] = Roster.load(kit).numbers

    def readers(self, sites: Collection[str] | None) -> str:
        """The end of a model log's name that lets these sites read it, those without a number left out; None: all."""
        numbers = self._now()
        return readers_of(None if sites is None else [numbers[site] for site in sites if site in numbers])

    def why_not(self, site: str, stream: str) -> str:
        """Why the broker lets a site not read a model log; "" when it does."""
        number = self._now().get(site)
        if number is None:
            return f"{site} is not in the federation's roster: copy {ROSTER} of `fedbus provision` into this kit again"
        if not may_read(stream, number):
            return (
                f"{site} was enrolled after this job began, and may not read its model log: submit a job that continues"
                " this one"
            )
        return ""

    def _now(self) -> Mapping[str, int]:
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._numbers = Roster.load(self._kit).numbers
            except TrustError as exc:
                log.error("roster", error=str(exc), text="the roster that was read before counts on")
        return self._numbers

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = (self._kit / ROSTER).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
