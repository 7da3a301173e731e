"""Tables of `fedbus simulate`; what they show is what `-o json` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from fedbus.runtime.printable import printable
from fedbus.runtime.terminal import said

if TYPE_CHECKING:
    from fedbus.core.spec.training import TrainingSpec
    from fedbus.simulation import Result

KIB = 1024


def tables(spec: TrainingSpec, result: Result) -> Iterator[RenderableType]:
    """The run in short, then one line per site."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("job", said(spec.name))
    facts.add_row("ended", f"at virtual second {result.ended_at:g}: {printable(result.reason)}")
    if result.rule is not None:
        facts.add_row("rule", said(result.rule))
    facts.add_row("versions", str(result.version))
    facts.add_row("updates", f"{result.updates} folded, {result.refused} refused, {result.clipped} clipped")
    facts.add_row("sent", f"{result.bytes_up / KIB:.0f} KiB up, {result.bytes_down / KIB:.0f} KiB down")
    facts.add_row("staleness", ", ".join(f"{name} {value:.3g}" for name, value in result.staleness.items()))
    for name, value in result.points[-1].metrics.items():
        facts.add_row(said(name), f"{value:.4f}")
    yield facts
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("site", "updates", "refused", "lost", "mean staleness", "KiB up", "KiB down"):
        table.add_column(column, justify="left" if column == "site" else "right")
    for name, site in result.sites.items():
        numbers = (site.folded, site.refused, site.lost, f"{site.mean_staleness:.1f}")
        table.add_row(said(name), *map(str, numbers), f"{site.bytes_up / KIB:.0f}", f"{site.bytes_down / KIB:.0f}")
    yield table
