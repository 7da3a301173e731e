"""What every benchmark needs: rows of case, value, unit, goal, met; log lines by event; peak memory of a process."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

MIB = 1 << 20

Row = dict[str, Any]


class Logged(Protocol):
    """A daemon with its log lines."""

    name: str

    def events(self) -> Iterable[dict[str, Any]]: ...


def row(case: str, value: float, unit: str, goal: float | None = None) -> Row:
    """One figure; it meets its goal when it is not larger."""
    return {
        "case": case,
        "value": round(value, 4),
        "unit": unit,
        "goal": goal,
        "met": None if goal is None else value <= goal,
    }


def lines_of(daemon: Logged, event: str) -> list[dict[str, Any]]:
    """The daemon's log lines of one event, in order."""
    return [e for e in daemon.events() if e.get("event") == event]


def time_of(line: dict[str, Any]) -> float:
    """When a log line was written, in seconds since the epoch."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def peak_bytes(pid: int) -> float:
    """Peak resident memory of a process so far."""
    return _memory_bytes(pid, "VmHWM:")


def resident_bytes(pid: int) -> float:
    """Resident memory of a process now."""
    return _memory_bytes(pid, "VmRSS:")


def _memory_bytes(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return float(line.split()[1]) * 1024
    return 0.0
