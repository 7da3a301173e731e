"""What lies at the top of the repository is little and stays so: no dump, no report of a test, no file of a tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = {"LICENSE", "README.md", "compose.yaml", "deploy", "fedbus", "pyproject.toml", "services", "tests"}


def test_nothing_else_lies_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git repository: a copy of the files")
    top = {line.partition("/")[0].strip('"') for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} == NAMED
