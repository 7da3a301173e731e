"""Gauges that every daemon has: its release, the broker, its disk, its certificate."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

import fedbus
from fedbus.runtime import metrics as n
from fedbus.runtime.metrics import Of, Sample


class Link(Protocol):
    """A session with the broker."""

    name: str

    @property
    def connected(self) -> bool: ...

    @property
    def blocked(self) -> bool: ...


def of_daemon(
    daemon: Of, links: Iterable[Link], *, certificate_ends: datetime | None, lists_end: datetime | None
) -> Iterator[Sample]:
    """What there is to know without a look at the disk; no certificate where a password logs in."""
    yield Sample(n.BUILD, 1, (str(daemon), fedbus.__version__))
    for link in links:
        session = link.name.rpartition("/")[2]
        yield Sample(n.CONNECTED, float(link.connected), (session,))
        yield Sample(n.BLOCKED, float(link.blocked), (session,))
    if certificate_ends is not None:
        yield Sample(n.CERTIFICATE_END, certificate_ends.timestamp())
    if lists_end is not None:
        yield Sample(n.LIST_END, lists_end.timestamp())


def disk_free(folder: Path) -> Sample:
    """Room on the disk of a folder, for who is not root."""
    found = os.statvfs(folder)
    return Sample(n.DISK_FREE, found.f_bavail * found.f_frsize)
