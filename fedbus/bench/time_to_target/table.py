"""How a comparison is shown: rows as data, a table for a terminal, the table of the figures page.

What lives here: text. What may not: runs, goals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from fedbus.bench.time_to_target.goals import times_ratio
from fedbus.bench.time_to_target.plan import Setting, Summary
from fedbus.bench.time_to_target.rules import rule_of
from fedbus.bench.time_to_target.scenarios import SCENARIOS

MB = 1e6
WIDTH = 132
"""Of a table that goes to a file or a pipe; a terminal has its own."""


def as_data(rows: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return rows as JSON-able data: None where a target was not reached."""
    return [_data(row, {other.rule: other for other in rows if other.setting == row.setting}) for row in rows]


def _data(row: Summary, others: dict[str, Summary]) -> dict[str, Any]:
    low, high = row.quartiles_s
    against = {f"x_{name}": _finite(times_ratio(row, others[name])) for name in ("sync", "fedbuff") if name in others}
    return {
        "scenario": row.setting.scenario,
        "lr_factor": row.setting.lr_factor,
        "ratio": row.setting.ratio,
        "rule": row.rule,
        "eta": row.eta,
        "seeds": len(row.outcomes),
        "reached": sum(outcome.time_s is not None for outcome in row.outcomes),
        "time_s": _finite(row.time_s),
        "quartiles_s": [_finite(low), _finite(high)],
        **against,
        "updates": _finite(row.updates),
        "bytes_up": _finite(row.bytes_up),
        "bytes_down": _finite(row.bytes_down),
        "final": row.final,
        "rare": row.rare,
        "cpu_s": round(row.cpu_s, 1),
    }


def print_table(rows: Sequence[Summary]) -> None:
    """Print one table per setting."""
    from rich.table import Table

    from fedbus.runtime.terminal import Terminal

    console = Terminal()
    if not console.is_terminal:
        console = Terminal(width=WIDTH)
    for setting in dict.fromkeys(row.setting for row in rows):
        scenario = SCENARIOS[setting.scenario]
        sign = ">=" if scenario.better == "higher" else "<="
        table = Table(
            *("rule", "eta", "time, s", "quartiles", "x sync", "x fedbuff", "updates", "MB up", "MB down"),
            *("final", "rare"),
            title=f"{setting}: {scenario.metric} {sign} {scenario.target:g}",
        )
        for data in as_data([row for row in rows if row.setting == setting]):
            table.add_row(*_cells(data))
        console.print(table)


def _cells(data: dict[str, Any]) -> Iterator[str]:
    low, high = data["quartiles_s"]
    yield data["rule"]
    yield _number(data["eta"], "{:g}", missing="")
    yield _number(data["time_s"], "{:.1f}")
    yield f"{_number(low, '{:.1f}')} to {_number(high, '{:.1f}')}"
    yield _number(data.get("x_sync"), "{:.2f}", missing="")
    yield _number(data.get("x_fedbuff"), "{:.2f}", missing="")
    yield _number(data["updates"], "{:.0f}", missing="")
    for name in ("bytes_up", "bytes_down"):
        yield _number(data[name] and data[name] / MB, "{:.2f}", missing="")
    for name in ("final", "rare"):
        yield _number(data[name], "{:.3f}", missing="")


def markdown(rows: Sequence[Summary]) -> str:
    """Return the figures page's table: a line per rule, a column per setting with median (quartiles), and finals."""
    settings = list(dict.fromkeys(row.setting for row in rows))
    heads = [_head(setting) for setting in settings]
    lines = [f"| rule | {' | '.join(heads)} |", "|---" * (1 + len(settings)) + "|"]
    for name in dict.fromkeys(row.rule for row in rows):
        mine = {row.setting: row for row in rows if row.rule == name}
        cells = [_cell(mine[setting]) if setting in mine else "" for setting in settings]
        lines.append(f"| {rule_of(name).title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _head(setting: Setting) -> str:
    scenario = SCENARIOS[setting.scenario]
    percent = f"{scenario.target:.0%}" if scenario.metric == "accuracy" else f"{scenario.metric} {scenario.target:g}"
    return f"{setting}: s → {percent}"


def _cell(row: Summary) -> str:
    low, high = row.quartiles_s
    spread = "" if math.isinf(row.time_s) else f" ({_short(low)}–{_short(high)})"  # noqa: RUF001 - a range
    scores = [f"{name} {value:.3f}" for name, value in (("final", row.final), ("rare", row.rare)) if value is not None]
    return "; ".join([f"{_short(row.time_s)}{spread}", *scores])


def _short(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.0f}"


def _finite(value: float) -> float | None:
    return None if math.isinf(value) else round(value, 4)


def _number(value: float | None, form: str, *, missing: str = "never") -> str:
    return missing if value is None else form.format(value)
