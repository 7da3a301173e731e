"""`fedbus --help` answers at once: nothing that costs time is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HEAVY = {"torch", "numpy", "aio_pika", "pydantic", "rich.table", "safetensors"}
# The goal is 0.3 s on an idle machine; tests share two cores with much else.
AT_MOST_S = 3.0


def test_help_imports_nothing_heavy():
    code = "import sys, fedbus.cli.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_help_lists_the_commands_in_a_moment():
    program = Path(sys.executable).with_name("fedbus")
    began = time.monotonic()
    done = subprocess.run(
        [program, "--help"],
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert time.monotonic() - began < AT_MOST_S
    words = done.stdout.split()
    assert {"demo", "aggregator", "site", "submit", "jobs", "show", "sites", "watch", "abort", "broker"} <= set(words)
