"""Each block of commands of a page is run by a test, or says above it why not.

The line before the block says which, as a comment that no reader sees:

    <!-- run here -->                       the tests below run it, word for word
    <!-- run by tests/cli/test_x.py -->     that file does the same with names of its own
    <!-- not run: needs two machines -->

What is no command is a block with a language: text, yaml, toml, python.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / ".github/CONTRIBUTING.md", *sorted((ROOT / "deploy").glob("**/*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMANDS = ("", "sh", "bash", "console")
ONLINE = ("fedbus broker",)
"""Lines that need a broker at the tutorial's port, which may be somebody else's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Commands of a page, and what is said of them."""

    line: int
    mark: str
    text: str

    def fault(self) -> str | None:
        if self.mark == "run here" or re.fullmatch(r"not run: \S.{9,}", self.mark):
            return None
        by = self.mark.removeprefix("run by ").split() if self.mark.startswith("run by ") else []
        if by and all((ROOT / name).is_file() for name in by):
            return None
        return f"line {self.line}: {self.text.splitlines()[0]!r} is marked {self.mark!r}"


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        if found["language"] in COMMANDS:
            line = text.count("\n", 0, found.start()) + 1
            yield Block(line=line, mark=found["mark"] or "", text=found["text"])


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_of_a_page_are_run_or_it_says_why_not(page: str) -> None:
    assert [fault for block in blocks(ROOT / page) if (fault := block.fault())] == []


def run_here(page: str, folder: Path) -> None:
    """Run the blocks of a page that are marked so, in their order, in a folder. `fedbus` is the checkout's."""
    python = Path(sys.executable).parent
    env = {name: value for name, value in os.environ.items() if not name.startswith("FEDBUS_")}
    env |= {"PATH": f"{python}:{env['PATH']}", "PYTHONPATH": str(ROOT), "FEDBUS_HOME": str(folder / "home")}
    for block in blocks(ROOT / page):
        if block.mark == "run here":
            script = "\n".join(line for line in block.text.splitlines() if not line.startswith(ONLINE))
            words = ["bash", "-euc", script]
            done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def test_the_tutorial_makes_a_federation_two_policies_and_a_fault(tmp_path: Path) -> None:
    page = (ROOT / "deploy/docs/tutorial.md").read_text("utf-8")
    (tmp_path / "federation.yaml").write_text(re.findall(r"```yaml\n(federation:.*?)```", page, re.DOTALL)[0])
    run_here("deploy/docs/tutorial.md", tmp_path)
    for site in ("cleveland", "hungary"):
        policy = tomllib.loads((tmp_path / f"hearts/sites/{site}/policy.toml").read_text())
        assert policy["tasks"]["heart_disease"]["params"]["local.steps"] == {"min": 1, "max": 500}
    right, wrong = (
        [row["num"] for row in csv.DictReader((tmp_path / folder / "heart_disease.csv").read_text().splitlines())]
        for folder in ("hungary.right", "data/hungary")
    )
    assert [int(one) + 1 for one in right] == [int(one) for one in wrong]


def test_a_request_is_made_with_openssl_alone(tmp_path: Path) -> None:
    run_here("deploy/README.md", tmp_path)
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    assert "BEGIN CERTIFICATE REQUEST" in (tmp_path / "NAME.csr").read_text()
