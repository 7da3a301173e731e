"""What sites said while they had no allowance left: the newest of each kind, done when there is some again.

Nothing that matters is lost by that: an answer, a score or a coming replaces the one before it. Bounded by the kinds of
messages times the jobs that run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class PutOff(Generic[T]):
    """By site, in the order in which each was put off."""

    def __init__(self) -> None:
        self._by_site: dict[str, dict[Hashable, T]] = {}

    def put(self, site: str, key: Hashable, what: T) -> None:
        """Keep it instead of what was put off under the same key."""
        waiting = self._by_site.setdefault(site, {})
        waiting.pop(key, None)
        waiting[key] = what

    def get(self, site: str, key: Hashable) -> T | None:
        return self._by_site.get(site, {}).get(key)

    def drop(self, site: str, key: Hashable) -> None:
        """It was done, or something newer was."""
        waiting = self._by_site.get(site, {})
        waiting.pop(key, None)
        if not waiting:
            self._by_site.pop(site, None)

    def oldest(self) -> Iterator[tuple[str, Hashable, T]]:
        """What each site waits for longest."""
        for site, waiting in list(self._by_site.items()):
            for key, what in waiting.items():
                yield site, key, what
                break
