"""`fedbus check` without a broker: every error with its path, or what the job will be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

GOOD = """
name: heart
task: heart_disease
local: {steps: 20, batch_size: 16, learning_rate: 0.1}
stop: {versions: 40}
"""


def check(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Checks what comes on standard input; no broker can be reached."""
    return subprocess.run(
        [Path(sys.executable).with_name("fedbus"), "check", "-", *options],
        env={**os.environ, "FEDBUS_BROKER_URL": "amqp://submitter:secret@127.0.0.1:9/none"},
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_good_spec_is_told_and_no_broker_is_asked():
    done = check(GOOD)

    assert (done.returncode, done.stderr) == (0, "")
    assert "after 40 versions" in done.stdout
    assert "every site that has the task and accepts (default)" in done.stdout


def test_every_error_is_said_with_its_path_and_nothing_else():
    done = check(GOOD.replace("steps: 20", "steps: 0") + "colour: blue\n")

    assert (done.returncode, done.stdout) == (1, "")
    assert "  local.steps: " in done.stderr
    assert "  colour: unknown key" in done.stderr


def test_the_reference_needs_no_job():
    done = subprocess.run(
        [Path(sys.executable).with_name("fedbus"), "check", "--reference"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "local.batch_size: whole number from 1 to 10^6, required\n    Examples in one training step" in done.stdout
