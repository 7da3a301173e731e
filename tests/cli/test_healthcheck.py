"""The health check of the daemons: healthy is who holds a connection to the broker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HEALTHCHECK = Path(__file__).parents[2] / "services" / "healthcheck.py"


@pytest.fixture
def healthcheck(tmp_path):
    def call(url: str) -> int:
        secret = tmp_path / "broker-url"
        secret.write_text(f"{url}\n")
        environment = {**os.environ, "FEDBUS_BROKER_URL_FILE": str(secret)}
        return subprocess.run([sys.executable, HEALTHCHECK], env=environment, check=False).returncode

    return call


def test_connected_is_healthy_and_away_is_not(healthcheck):
    with socket.create_server(("127.0.0.1", 0)) as broker:
        port = broker.getsockname()[1]
        url = f"amqp://site-a:secret@127.0.0.1:{port}/fedbus"
        assert healthcheck(url) == 1
        with socket.create_connection(("127.0.0.1", port)):
            assert healthcheck(url) == 0
