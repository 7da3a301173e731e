"""What every event has: a kind, a site, a sentence for people, and facts, which are its fields, for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Final

NOBODY: Final = "-"
"""Stands for no site, and for no job."""
_IN_TEXT: Final = "in text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """An event. `told`: its sentence as somebody else has said it; None in one that is made here.

    A field made with `in_text` is part of the sentence alone: it has no value in an event that was read.
    """

    kind: ClassVar[str]
    site: str = NOBODY
    told: str | None = None

    @property
    def text(self) -> str:
        """The sentence for people."""
        return self.sentence() if self.told is None else self.told

    def sentence(self) -> str:
        """What the fields say in words."""
        return ""

    @property
    def facts(self) -> dict[str, Any]:
        """The fields for programs, as JSON-able data; one that is None is not said."""
        said = ((name, getattr(self, name)) for name in fact_names(type(self)))
        return {name: _plain(value) for name, value in said if value is not None}


_OWN: Final = frozenset(f.name for f in fields(Happened))


def in_text(default: Any = "") -> Any:
    """A field that stands in the sentence and not among the facts."""
    return field(default=default, metadata={_IN_TEXT: True})


def fact_names(cls: type[Happened]) -> tuple[str, ...]:
    """The facts that an event of this kind has, in order."""
    known: Any = cls
    return _fact_names(known)


@cache
def _fact_names(cls: Any) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if f.name not in _OWN and _IN_TEXT not in f.metadata)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
