"""Healthy means: this machine or container holds an established connection to the broker of the daemon's broker URL.

The daemons open no port that could be asked. While the broker is away they retry by themselves: an orchestrator should
show this state, not restart the daemon for it. Exit code 0 healthy, 1 not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fedbus.bus.url import BrokerUrl

ESTABLISHED = "01"  # state in /proc/net/tcp


def broker_port() -> int:
    """The port of the broker, from the URL's file, the variable or the settings file; found without heavy imports."""
    if file := os.environ.get("FEDBUS_BROKER_URL_FILE"):
        return BrokerUrl.parse(Path(file).read_text()).port
    if url := os.environ.get("FEDBUS_BROKER_URL"):
        return BrokerUrl.parse(url).port
    from fedbus.runtime.settings import DaemonSettings

    return BrokerUrl.parse(DaemonSettings.load().url_for("this daemon")).port


def connections_to(port: int) -> int:
    """Established TCP connections of this network namespace to a remote `port`."""
    found = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            found += sum(row[3] == ESTABLISHED and int(row[2].rpartition(":")[2], 16) == port for row in rows)
    return found


def main() -> None:
    """Leave with the answer."""
    sys.exit(0 if connections_to(broker_port()) else 1)


if __name__ == "__main__":
    main()
