"""What an evaluation has come to: every model at every site, and the means over the sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedbus.console.compare import LEFT_OUT
from fedbus.console.outcome import models_of
from fedbus.console.report.compare import compare_sections
from fedbus.core.protocol.answers import Interval, JobDetail, ScoredModel, SiteScore, VersionLine
from fedbus.report import figures
from fedbus.report import page as p

MOST_FIGURES = 8


def evaluate_sections(detail: JobDetail, history: Sequence[VersionLine]) -> Iterator[p.Section]:
    """What a comparison has come to, the models by number, a matrix for each metric, and who could not score what."""
    models = models_of(detail)
    if not models:
        return
    yield from compare_sections(detail, history)
    yield p.Section(title="What the sites measured", blocks=list(matrix_blocks(models)))


def matrix_blocks(models: Sequence[ScoredModel]) -> Iterator[p.Block]:
    """The models by number, a matrix for each metric, and who could not score what."""
    yield p.Table(columns=["number", "model"], rows=[(f"model {n}", model.model) for n, model in enumerate(models)])
    yield from _matrices(models)
    if any(model.sites_intervals_left_out for model in models):
        yield p.Text(text=LEFT_OUT)
    yield from _failed(models)


def _matrices(models: Sequence[ScoredModel]) -> Iterator[p.Block]:
    sites = sorted({site for model in models for site in (*model.scores, *model.failed)})
    names = sorted({name for model in models for score in model.scores.values() for name in score.metrics})
    columns = [f"model {number}" for number in range(len(models))]
    for name in names[:MOST_FIGURES]:
        entries = {
            (i, j): figures.Entry(value=score.metrics[name], note=_note(score, name))
            for i, site in enumerate(sites)
            for j, model in enumerate(models)
            if name in (score := model.scores.get(site, SiteScore())).metrics
        }
        means = {
            (len(sites), j): figures.Entry(value=m.means[name], note=interval_text(m.interval_of_mean(name)))
            for j, m in enumerate(models)
            if name in m.means
        }
        found = "; ".join(f"{sites[i]}, model {j}: {entry.value:.3f}" for (i, j), entry in list(entries.items())[:40])
        caption = (
            f"{name}: rows are sites, each with its own test data; the last row is the mean by examples. Below a value:"
            " its 95 % interval, or the number of test cases"
        )
        rows = [*sites, "all sites"]
        yield figures.matrix(rows, columns, entries | means, says=f"{name}: {found}", caption=caption)


def _note(score: SiteScore, name: str) -> str:
    return interval_text(score.intervals.get(name)) or f"n = {score.num_examples}"


def interval_text(interval: Interval | None) -> str:
    """A 95 % interval in a few characters; empty: none is known."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"{interval.low:.2f} to {interval.high:.2f}"


def _failed(models: Sequence[ScoredModel]) -> Iterator[p.Block]:
    findings = [
        p.Finding(severity=p.Severity.WARNING, text=f"{site} could not score model {number}", detail=why)
        for number, model in enumerate(models)
        for site, why in model.failed.items()
    ]
    if findings:
        yield p.Findings(findings=findings)
