"""Which job specs contradict themselves in what travels, stays at the sites or is frozen, as far as names alone tell.

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


def check_whole(*, evaluate_local: bool, travel: Sequence[str], keep: Sequence[str]) -> None:
    """Raise SpecValueError for local models that other sites are to score and that lack what stays at their site."""
    if evaluate_local and (travel or keep):
        key = "keep" if keep else "travel"
        raise SpecValueError(
            "evaluate_local", f"needs whole models, and {key} leaves a part of them at each site: leave one of them out"
        )
