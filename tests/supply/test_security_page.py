"""deploy/SECURITY.md names tests: each one is in the tree, and each part says what is not stopped."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy" / "SECURITY.md").read_text("utf-8")
ACTORS = (
    "The operator of the broker",
    "The aggregator",
    "A site",
    "A submitter",
    "An outsider on the network",
    "A thief",
)


def test_each_named_test_is_in_the_tree():
    there = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named - there == set()
    assert len(named) > 40


def test_each_actor_has_what_is_not_stopped():
    parts = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert [actor for actor in ACTORS if "**Not stopped.**" not in parts[actor]] == []


def test_every_row_of_an_actor_names_a_test():
    rows = [line for line in PAGE.partition("## Evidence")[0].splitlines() if line.startswith("| ")]
    assert [row for row in rows if "`test_" not in row and not row.startswith(("| tries to |", "| has |"))] == []
