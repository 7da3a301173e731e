"""The sites of a federation, their numbers and who was revoked when: `roster.json` in the aggregator's kit.

`fedbus provision` writes it, the aggregator reads it again whenever it changes. Loads no cryptography.

    {"federation": "hearts", "sites": {"site-a": {"number": 0, "revoked": null}}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedbus.errors import TrustError
from fedbus.trust.subjects import Role, Subject

ROSTER = "roster.json"
MAX_ROSTER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """`numbers` of all sites ever enrolled; `revoked` are those that are out, with the time."""

    federation: str
    numbers: dict[str, int] = field(default_factory=dict)
    revoked: dict[str, datetime] = field(default_factory=dict)

    def text(self) -> str:
        sites = {name: {"number": number, "revoked": _iso(self.revoked.get(name))} for name, number in self._rows()}
        return json.dumps({"federation": self.federation, "sites": sites}, indent=1) + "\n"

    def _rows(self) -> list[tuple[str, int]]:
        return sorted(self.numbers.items(), key=lambda row: row[1])

    @classmethod
    def parse(cls, text: str) -> Roster:
        """TrustError when this is no roster."""
        try:
            data = json.loads(text)
            rows: dict[str, dict[str, Any]] = dict(data["sites"])
            numbers = {
                Subject(federation=data["federation"], name=name, role=Role.SITE, number=row["number"]).name: int(
                    row["number"]
                )
                for name, row in rows.items()
            }
            if len(set(numbers.values())) != len(numbers):
                raise ValueError("two sites have one number")
            revoked = {name: _time(row["revoked"]) for name, row in rows.items() if row["revoked"] is not None}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise TrustError(f"this is no roster of a federation ({exc}): copy {ROSTER} again") from exc
        return cls(federation=data["federation"], numbers=numbers, revoked=revoked)

    @classmethod
    def load(cls, kit: Path) -> Roster:
        """The roster of the aggregator's kit. TrustError when it is missing or wrong."""
        path = kit / ROSTER
        try:
            if path.stat().st_size > MAX_ROSTER_BYTES:
                raise TrustError(f"{path} is larger than {MAX_ROSTER_BYTES:,} bytes: that is no roster")
            return cls.parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as exc:
            raise TrustError(f"{path} cannot be read ({exc}): copy it again from the federation") from exc


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"time {text!r} without a zone")
    return at
