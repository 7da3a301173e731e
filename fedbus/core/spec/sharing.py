"""Which job specs name a tensor twice among what travels, stays at the sites or is frozen, as far as names alone tell.

Patterns that are not equal may still name the same tensor: each site finds that with its task's model.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedbus.core.spec.text import SpecValueError


def check_sharing(**lists: Sequence[str]) -> None:
    """Raise SpecValueError for an entry that stands in two of the lists, which are given by their keys."""
    first: dict[str, str] = {}
    for key, entries in lists.items():
        for entry in entries:
            other = first.setdefault(entry, key)
            if other != key:
                raise SpecValueError(key, f"names {entry!r}, which {other} names as well: leave it out of one of them")
