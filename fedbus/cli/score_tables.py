"""Tables of what sites measured, with 95 % intervals: rows are sites, in 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fedbus.cli.table import add_row, plain_table
from fedbus.console.compare import FIRST, LEFT_OUT, SECOND, Comparison, sentences, verdict
from fedbus.core.protocol.answers import Interval, ScoredModel, SiteScore, from_json
from fedbus.runtime.terminal import said

ON_ONE_LINE = 2
"""With more columns the interval stands below its value."""
MOST_COLUMNS = 4
OVER_ALL = "all, by examples"

Cell = Callable[[str], Text]
"""What stands in a column, in the row of a site (OVER_ALL: of all)."""


def model_tables(models: Sequence[ScoredModel]) -> Iterator[RenderableType]:
    """What each site measured of each model, one table a metric; the models are numbered above."""
    listed = Table.grid(padding=(0, 2))
    for number, model in enumerate(models):
        add_row(listed, f"model {number}", model.model)
    yield listed
    yield from _metric_tables(models)
    if any(model.sites_intervals_left_out for model in models):
        yield said(LEFT_OUT)
    for number, model in enumerate(models):
        for site, why in model.failed.items():
            yield said(f"{site} could not score model {number}: {why}")


def _metric_tables(models: Sequence[ScoredModel]) -> Iterator[RenderableType]:
    sites = sorted({site for model in models for site in (*model.scores, *model.failed)})
    examples = {s: max((m.scores[s].num_examples for m in models if s in m.scores), default=None) for s in sites}
    names = [f"model {number}" for number in range(len(models))]
    for metric in sorted({name for m in models for s in m.scores.values() for name in (*s.metrics, *s.not_finite)}):
        cells = [partial(_cell, model, metric=metric, wide=len(models) > ON_ONE_LINE) for model in models]
        yield from _tables(metric, names, examples, cells)


def version_tables(title: str, scored: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What the sites measured of a version at the end of a training, where they say intervals.

    scored: a result, or its `best`, with `scores` by site and `intervals` over them.
    """
    scores = {site: from_json(SiteScore, score) for site, score in scored.get("scores", {}).items()}
    overall = {name: from_json(Interval, one) for name, one in scored.get("intervals", {}).items()}
    names = sorted({name for score in scores.values() for name in score.metrics})
    if not any(score.intervals for score in scores.values()):
        return
    model = ScoredModel(scores=scores, intervals=overall, means={name: one.value for name, one in overall.items()})
    cells = [partial(_cell, model, metric=name, wide=len(names) > ON_ONE_LINE) for name in names]
    yield from _tables(title, names, {site: score.num_examples for site, score in scores.items()}, cells)


def comparison_tables(comparison: Comparison) -> Iterator[RenderableType]:
    """The answer in words, then each metric: B less A at each site."""
    yield said(f"{FIRST}: {comparison.first}")
    yield said(f"{SECOND}: {comparison.second}")
    for text in sentences(comparison):
        yield said(text)
    for one in comparison.differences:
        table = plain_table(f"{one.metric}, {SECOND} less {FIRST}", "cases", "95 % interval", "says")
        for site, found in sorted(one.sites.items()):
            add_row(table, site, found.cases or None, *_difference(one.metric, found))
        if one.overall is not None:
            add_row(table, OVER_ALL, one.overall.cases, *_difference(one.metric, one.overall))
        yield table


def _difference(metric: str, found: Interval) -> tuple[str, str]:
    ends = "" if found.low is None or found.high is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.value:+.3f}{ends}", verdict(metric, found)


def _tables(
    title: str, names: Sequence[str], examples: Mapping[str, int | None], cells: Sequence[Cell]
) -> Iterator[Table]:
    for first in range(0, len(names), MOST_COLUMNS):
        columns = range(first, min(first + MOST_COLUMNS, len(names)))
        table = plain_table(title, "examples", *(names[column] for column in columns))
        for site in examples:
            add_row(table, site, examples[site], *(cells[column](site) for column in columns))
        add_row(table, OVER_ALL, None, *(cells[column](OVER_ALL) for column in columns))
        yield table


def _cell(model: ScoredModel, site: str, *, metric: str, wide: bool) -> Text:
    if site == OVER_ALL:
        return _value(model.means.get(metric), model.interval_of_mean(metric), wide=wide)
    score = model.scores.get(site, SiteScore())
    if metric in score.not_finite:
        return Text("not finite")
    return _value(score.metrics.get(metric), score.intervals.get(metric), wide=wide, of=score.num_examples)


def _value(value: float | None, interval: Interval | None, *, wide: bool, of: int = 0) -> Text:
    """A value and its interval; of: examples of the site, where fewer have a value of this metric, it is said."""
    if value is None:
        return Text("")
    if interval is None or interval.low is None or interval.high is None:
        return Text(f"{value:.3f}")
    ends = f"{interval.low:.2f} to {interval.high:.2f}" if wide else f"[{interval.low:.3f}, {interval.high:.3f}]"
    fewer = f" n={interval.cases}" if 0 < interval.cases < of else ""
    return Text(f"{value:.3f}{chr(10) if wide else ' '}{ends}{fewer}")
