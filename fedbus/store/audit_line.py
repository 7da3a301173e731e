"""One line of an audit log: who did what, when, as JSON; and its hash, which the next line carries.

    {"sequence": n, "at": UTC, "kind": "...", "facts": {...}, "before": SHA-256 of the line before}

A line that a kill has cut is closed where it ends, by a line of the kind `line-cut` that says how many bytes of it
there are and their hash: both together are then one line of the chain. Facts are ids, counts and digests: what people
or tasks say is cut to MOST_TEXT and stripped of what moves a cursor.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fedbus.store.audit_kinds import Kind

START = "0" * 64
"""What stands in the place of a hash in the first line of all."""
MOST_TEXT = 200
SHORT_DIGITS = 16
MOST_ITEMS = 32
MOST_LINE_BYTES = 1 << 16
_BEGINS = b'{"sequence":'
_HEAD = re.compile(r"(0|[1-9][0-9]{0,17}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a log is: the sequence of its newest line and its hash. Whoever keeps it can hold the log to it."""

    sequence: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.sequence}:{self.sha256}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Parse `sequence:sha256`; ValueError when it is not one."""
        found = _HEAD.fullmatch(text)
        if found is None:
            raise ValueError(f"expected the head of an audit log, SEQUENCE:64 hex digits, got {text[:80]!r}")
        return cls(sequence=int(found[1]), sha256=found[2])

    @property
    def short(self) -> str:
        """For people to compare: the sequence and 16 digits of the hash, in groups of four."""
        return f"{self.sequence}:{'-'.join(self.sha256[at : at + 4] for at in range(0, SHORT_DIGITS, 4))}"

    @classmethod
    def compared(cls, text: str) -> Head:
        """What somebody gives to compare with: as a head, or as `short` says it. Raises ValueError."""
        sequence, _, digits = text.strip().lower().partition(":")
        digits = digits.replace("-", "")
        if not re.fullmatch(rf"[0-9a-f]{{{SHORT_DIGITS},64}}", digits) or not re.fullmatch(
            "[1-9][0-9]{0,17}", sequence
        ):
            raise ValueError(
                f"expected SEQUENCE:HASH, the hash with {SHORT_DIGITS} to 64 hex digits, got {text[:80]!r}"
            )
        return cls(sequence=int(sequence), sha256=digits)

    def is_of(self, line: Line) -> bool:
        """Whether it is the head of a log whose newest line is this one."""
        return self.sequence == line.sequence and line.sha256.startswith(self.sha256)


NOTHING = Head(sequence=0, sha256=START)
"""The head of a log without a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be a line. at: seconds since the epoch."""

    kind: Kind
    at: float
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line that was read. `cut_bytes`: so many of a line that was never whole stand before it."""

    sequence: int
    at: str
    kind: str
    facts: Mapping[str, Any]
    before: str
    sha256: str
    cut_bytes: int = 0

    @property
    def head(self) -> Head:
        return Head(sequence=self.sequence, sha256=self.sha256)


def hash_of(line: bytes) -> str:
    """The hash of a line, without its line feed."""
    return hashlib.sha256(line).hexdigest()


def line_of(entry: Entry, after: Head) -> bytes:
    """The line of an entry that comes after `after`, without its line feed."""
    record = {
        "sequence": after.sequence + 1,
        "at": time_text(entry.at),
        "kind": str(entry.kind),
        "facts": {key: _plain(value) for key, value in entry.facts.items()},
        "before": after.sha256,
    }
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode()


def time_text(at: float) -> str:
    """Seconds since the epoch as UTC, to a millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_line(line: bytes) -> Line | None:
    """Read a line without its line feed; None when it is none."""
    found = _read(line)
    if found is not None:
        return _line(found, line, cut_bytes=0)
    place = line.rfind(_BEGINS)
    found = _read(line[place:]) if place > 0 else None
    if found is None or found["kind"] != Kind.LINE_CUT:
        return None
    facts = found["facts"]
    if facts.get("bytes") != place or facts.get("sha256") != hash_of(line[:place]):
        return None
    return _line(found, line, cut_bytes=place)


def closing(cut: bytes, *, at: float) -> Entry:
    """What closes a line of which only these bytes came to the disk."""
    return Entry(kind=Kind.LINE_CUT, at=at, facts={"bytes": len(cut), "sha256": hash_of(cut)})


def _line(found: Mapping[str, Any], line: bytes, *, cut_bytes: int) -> Line:
    return Line(**found, sha256=hash_of(line), cut_bytes=cut_bytes)


_TYPES = {"sequence": int, "at": str, "kind": str, "facts": dict, "before": str}


def _read(line: bytes) -> dict[str, Any] | None:
    if len(line) > MOST_LINE_BYTES:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != _TYPES.keys():
        return None
    return found if all(type(found[name]) is kind for name, kind in _TYPES.items()) else None


def _plain(value: Any) -> Any:
    """A fact as JSON has it, bounded."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if abs(value) < float("inf") else str(value)
        case Mapping():
            return {_text(str(key)): _plain(one) for key, one in list(value.items())[:MOST_ITEMS]}
        case list() | tuple() | set() | frozenset():
            items = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
            return [_plain(one) for one in items[:MOST_ITEMS]]
    return _text(str(value))


def _text(text: str) -> str:
    short = text[:MOST_TEXT]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in short)
