"""What a picture keeps of single events, each of a bounded size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event, UpdateId

MOST_TEXT = 500
MOST_REASONS = 32
OTHER_REASONS = "other reasons"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """An update that was folded."""

    update: str
    site: str
    staleness: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One version: when, and from whom."""

    version: int
    at: float
    contributions: tuple[Contribution, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An event as a line for people; `version` is the one that was newest before it."""

    at: float
    kind: str
    site: str
    text: str
    version: int = 0

    @classmethod
    def of(cls, event: Event, *, version: int) -> Self:
        return cls(at=event.at, kind=event.kind, site=event.site, text=event.text[:MOST_TEXT], version=version)


@dataclass(slots=True)
class Tally:
    """How often each of a few reasons was given; those beyond `MOST_REASONS` are counted together."""

    times: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str) -> None:
        name = reason[:MOST_TEXT]
        if name not in self.times and len(self.times) >= MOST_REASONS:
            name = OTHER_REASONS
        self.times[name] = self.times.get(name, 0) + 1


def unseen(update: str) -> Contribution:
    """An update whose folding was not seen: it came before the watcher."""
    try:
        site = UpdateId.parse(update).site
    except ValueError:
        site = e.NOBODY
    return Contribution(update=update, site=site, staleness=0)
