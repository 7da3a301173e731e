"""Audit logs and the heads of the sites' logs as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from fedbus.cli.table import add_row, plain_table
from fedbus.console.audit import facts_text
from fedbus.core.job.status_text import span
from fedbus.core.protocol.answers import AuditHead
from fedbus.store.audit_line import Head, Line

_TERMS = {"update-leaves": ("submitter", "task", "task_version", "policy", "filters", "to")}
"""What a table leaves out, because the line job-accepted has it; `-o json` has all."""


def lines_table(lines: Sequence[Line], *, of: int, left: Mapping[str, int]) -> RenderableType:
    """One row a line; below, how many there are and what left by all of them."""
    if not lines:
        return Text("no such line")
    table = plain_table("at (UTC)", "kind", "facts")
    for line in lines:
        facts = {name: value for name, value in line.facts.items() if name not in _TERMS.get(line.kind, ())}
        add_row(table, line.at[:19].replace("T", " "), line.kind, facts_text(facts))
    some = f"the newest {len(lines)} of {of} lines" if of > len(lines) else f"{of} lines"
    sums = ", ".join(f"{kind} {size:,} bytes" for kind, size in sorted(left.items())) or "nothing"
    return Group(table, Text(f"{some}; by all of them left: {sums}"))


def heads_table(heads: Sequence[AuditHead], *, now: float) -> RenderableType:
    """One row a site and job."""
    if not heads:
        return Text("no site has sent the head of an audit log yet: it comes with each update")
    table = plain_table("site", "head", "with its newest update of", "ago")
    for one in heads:
        add_row(table, one.site, Head.parse(one.head).short, one.job, span(max(0.0, now - one.at)))
    return table
