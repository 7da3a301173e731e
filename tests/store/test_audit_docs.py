"""The page of the audit log names every kind, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from fedbus.store.audit_kinds import Kind

PAGE = Path(__file__).parents[2] / "deploy" / "docs" / "audit.md"


def test_the_page_has_every_kind() -> None:
    table = PAGE.read_text("utf-8").partition("## Kinds")[2]
    named = {name for row in re.findall(r"^\| (`[^|]*)\|", table, re.MULTILINE) for name in re.findall("`(.*?)`", row)}
    assert named == set(Kind)
