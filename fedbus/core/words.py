"""Numbers in sentences for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return '1 site', '2 sites', '1,000 sites'."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
