"""Whether the daemon of this machine holds a connection to its broker, as the kernel lists them: nobody is disturbed.

For `fedbus doctor --quick`, which orchestrators run every minute: a connect of its own, which says nothing and ends,
would be a line in the broker's log each time.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from pathlib import Path

from fedbus.bus.url import BrokerUrl
from fedbus.doctor.finding import Area, Finding, Reporter

CONNECTION = Reporter(Area.NETWORK, "connection")
ESTABLISHED = "01"  # state in /proc/net/tcp
TABLES = ("tcp", "tcp6")


def connected(daemon: int, url: BrokerUrl, proc: Path = Path("/proc")) -> Finding | None:
    """That process `daemon` is connected to one of the broker's ports; None when it is not, or may not be looked at."""
    own = set(_sockets(proc / str(daemon) / "fd"))
    held = sum(inode in own for inode in _established({place.port for place in url.places}, proc))
    return CONNECTION.ok(f"process {daemon} holds {held} to {url.address}") if held else None


def _established(ports: Container[int], proc: Path) -> Iterator[str]:
    """The sockets of this network namespace with a connection to one of these remote ports, by inode."""
    for table in TABLES:
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:  # no IPv6 here
            continue
        for row in map(str.split, lines):
            if row[3] == ESTABLISHED and int(row[2].rpartition(":")[2], 16) in ports:
                yield row[9]


def _sockets(folder: Path) -> Iterator[str]:
    """The inodes of a process' sockets."""
    try:
        links = [os.readlink(path) for path in folder.iterdir()]
    except OSError:  # it has ended, or is another user's
        return
    for link in links:
        if link.startswith("socket:["):
            yield link[8:-1]
