"""Audit logs for people: in which folder a log is, which of its lines are meant, and what left by them."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedbus.errors import SettingsError
from fedbus.runtime.settings import default_home
from fedbus.store.audit import FOLDER, files_of, lines_of
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import Line, time_text

LEAVES = (Kind.UPDATE_LEAVES, Kind.MESSAGE_LEAVES, Kind.MESSAGES_LEAVE, Kind.VERSION_LEAVES, Kind.PARAMS_LEAVE)
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which lines: from a time on, of a job, of these kinds. Empty: all."""

    since: str = ""
    job: str = ""
    kinds: Collection[str] = ()

    def has(self, line: Line) -> bool:
        """Whether the line is one of them."""
        return (
            line.at >= self.since
            and self.job in ("", line.facts.get("job"))
            and (not self.kinds or line.kind in self.kinds)
        )


def log_folder(state_dir: Path | None, site: str | None) -> Path:
    """The folder of the log that is meant: of a state folder, a site, else of the only one here. SettingsError."""
    if state_dir is not None:
        inner = state_dir / FOLDER
        return _with_log(inner if inner.is_dir() else state_dir)
    home = default_home()
    if site is not None:
        return _with_log(home / "sites" / site / FOLDER)
    here = [path for path in (home / "aggregator" / FOLDER, *sorted(home.glob(f"sites/*/{FOLDER}"))) if files_of(path)]
    if len(here) == 1:
        return here[0]
    found = ", ".join(str(path.parent) for path in here) or "none"
    raise SettingsError(f"which audit log? Give --state-dir, or --site NAME; under {home}: {found}")


def _with_log(folder: Path) -> Path:
    try:
        files = files_of(folder)
    except OSError as exc:
        raise SettingsError(f"{folder} cannot be read: {exc.strerror}; run this as the user of the daemon") from exc
    if not files:
        raise SettingsError(f"no audit log in {folder}: give the state folder of a site or of an aggregator")
    return folder


def since_text(text: str) -> str:
    """The time from which on lines are meant, of a date such as 2026-11-02 or an age such as 30d. SettingsError."""
    age = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if age is not None:
        return time_text(max(0.0, time.time() - float(age[1]) * _UNITS[age[2]]))
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as exc:
        raise SettingsError(f"--since: expected a date in UTC such as 2026-11-02, or 30d; got {text!r}") from exc
    return time_text((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())


def lines_in(folder: Path, wanted: Wanted) -> Iterator[Line]:
    """The lines that are meant, oldest first; what is no line is left out. Raises StoreError."""
    for file in files_of(folder):
        yield from (line for _, line in lines_of(file) if isinstance(line, Line) and wanted.has(line))


def bytes_left(lines: Iterable[Line]) -> dict[str, int]:
    """Sum of the bytes that left by these lines, by kind of line."""
    sums: dict[str, int] = {}
    for line in lines:
        size = line.facts.get("bytes")
        if line.kind in LEAVES and isinstance(size, int):
            sums[line.kind] = sums.get(line.kind, 0) + size
    return sums


def as_json(line: Line) -> dict[str, Any]:
    """A line for programs."""
    return {
        "sequence": line.sequence,
        "at": line.at,
        "kind": line.kind,
        "facts": dict(line.facts),
        "sha256": line.sha256,
    }


def facts_text(facts: Mapping[str, Any]) -> str:
    """Facts in a few words: hashes cut to eight digits, what is empty left out."""
    said = ((name, _short(value)) for name, value in facts.items() if value not in ("", None, [], {}))
    return " ".join(f"{name}={value}" for name, value in said)


def _short(value: Any) -> str:
    match value:
        case dict():
            return "{" + facts_text(value) + "}"
        case list():
            return ",".join(map(_short, value))
    return re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1", str(value))
