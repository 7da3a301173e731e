"""Healthy means: this machine or container holds an established connection to the broker of the daemon's broker URL.

The daemons open no port that could be asked. While the broker is away they retry by themselves: an orchestrator should
show this state, not restart the daemon for it. Exit code 0 healthy, 1 not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from fedbus.bus.url import BrokerUrl
from fedbus.errors import SettingsError
from fedbus.runtime.process import run_process
from fedbus.runtime.settings import read_toml

ESTABLISHED = "01"  # state in /proc/net/tcp


def url_of_container() -> str:
    """The broker URL of the one daemon in a container, given or in its kit. Raises SettingsError."""
    file = os.environ.get("FEDBUS_BROKER_URL_FILE")
    if url := Path(file).read_text() if file else os.environ.get("FEDBUS_BROKER_URL"):
        return url
    tables = [value for value in read_toml().values() if isinstance(value, dict)]
    if url := next((table["broker_url"] for table in tables if "broker_url" in table), None):
        return str(url)
    raise SettingsError("no broker URL: set FEDBUS_BROKER_URL, FEDBUS_BROKER_URL_FILE or FEDBUS_KIT")


def connections_to(port: int) -> int:
    """Established TCP connections of this network namespace to a remote `port`."""
    found = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
            found += sum(row[3] == ESTABLISHED and int(row[2].rpartition(":")[2], 16) == port for row in rows)
    return found


def answer(broker_url: Callable[[], str]) -> NoReturn:
    """Leave with the answer for the daemon whose broker URL that is; 2 with the reason when it has none."""
    run_process(lambda: 0 if connections_to(BrokerUrl.parse(broker_url()).port) else 1)


if __name__ == "__main__":
    answer(url_of_container)
