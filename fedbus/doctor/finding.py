"""What a check has found, and the exit code that follows.

A check is a small function that gives findings. Whatever it is, a finding belongs to an area; the first area, in the
order below, in which something failed is the exit code. 1 to 3 are those that every command of fedbus has.

    0 fine, or warnings only   11 config   12 network   13 tls   14 login   15 broker   16 machine   17 tasks
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


class Area(StrEnum):
    """What a finding is about; in the order in which the areas are looked at."""

    CONFIG = "config"
    NETWORK = "network"
    TLS = "tls"
    LOGIN = "login"
    BROKER = "broker"
    MACHINE = "machine"
    TASKS = "tasks"


FIRST_CODE = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: the name of the check, how it went, what was seen, and what to do about it."""

    area: Area
    check: str
    status: Status
    text: str
    fix: str = ""


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when nothing failed, else the code of the first area in which something did."""
    failed = {finding.area for finding in findings if finding.status is Status.FAIL}
    return next((FIRST_CODE + number for number, area in enumerate(Area) if area in failed), 0)


@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes the findings of one check."""

    area: Area
    check: str

    def ok(self, text: str) -> Finding:
        return self._made(Status.OK, text)

    def warn(self, text: str, fix: str) -> Finding:
        return self._made(Status.WARN, text, fix)

    def fail(self, text: str, fix: str) -> Finding:
        return self._made(Status.FAIL, text, fix)

    def skipped(self, text: str) -> Finding:
        return self._made(Status.SKIPPED, text)

    def _made(self, status: Status, text: str, fix: str = "") -> Finding:
        return Finding(area=self.area, check=self.check, status=status, text=text, fix=fix)
