"""Tables for people; what they show is what `-o json` prints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fedbus.cli.check_tables import check_tables
from fedbus.cli.score_tables import comparison_tables, model_tables, version_tables
from fedbus.cli.table import add_row, plain_table
from fedbus.console.compare import comparisons_of
from fedbus.console.outcome import check_of, models_of
from fedbus.core.job.skew import MUCH_S
from fedbus.core.job.status_text import clock_words, span
from fedbus.core.protocol.answers import (
    Doing,
    JobDetail,
    JobLine,
    SiteInJob,
    SiteLine,
)
from fedbus.core.spec.cross_site import MOST_LOCAL
from fedbus.core.words import counted
from fedbus.runtime.printable import printable
from fedbus.runtime.terminal import Terminal, said

WIDE = 10_000
"""Columns of what is no terminal: no line is as long."""
BESIDE = 24
"""Columns for metrics beside what a site gave to the job; what needs more has tables of its own."""
OF_A_TABLE = 52
"""Columns for metrics beside the name of a site, in 80."""


def print_tables(*tables: RenderableType) -> None:
    """Print to standard output; into a pipe or file whole lines, neither cut nor padded."""
    console = Terminal()
    if console.is_terminal:
        for table in tables:
            console.print(table)
        return
    console = Terminal(width=None if "COLUMNS" in os.environ else WIDE)  # who sets it wants it
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def jobs_table(rows: Sequence[JobLine]) -> RenderableType:
    """One line per job, and below it what it says."""
    if not rows:
        return Text("no jobs yet: publish one with `fedbus submit JOB.yaml`")
    columns = ("job", "task", "state", "version", "updates")
    cells = [columns, *(tuple(said(getattr(row, name)).plain for name in columns) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *lines = (
        Text("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()) for line in cells
    )
    head.stylize("bold")
    # What a job says may be long: who declined and why. It gets the whole width, below its job.
    texts = ([row.says, row.rule] if row.rule else [row.says] for row in rows)
    below = (Padding(Text("\n".join(map(printable, text))), (0, 0, 0, 4), expand=False) for text in texts)
    return Group(head, *(part for pair in zip(lines, below, strict=True) for part in pair))


def sites_table(rows: Sequence[SiteLine]) -> RenderableType:
    """One line per site."""
    if not rows:
        return Text("no site has joined yet: start one with `fedbus site --name NAME --data DIR`")
    table = plain_table("site", "state", "since", "heard", "device", "does")
    for row in rows:
        does = "; ".join(f"{job}: {_activity(a)}" for job, a in row.jobs.items()) or row.reason or "idle"
        ahead_s = row.clock_ahead_s or 0.0
        does += f"; its clock is {clock_words(ahead_s)} the aggregator's" if abs(ahead_s) > MUCH_S else ""
        used = sorted({a.device for a in row.jobs.values() if a.device})
        device = ", ".join(used) or row.device
        add_row(table, row.site, row.state, span(row.since_s), f"{span(row.heard_s)} ago", device, does)
    return table


def job_tables(detail: JobDetail) -> list[RenderableType]:
    """Everything about one job."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")  # the path of an export is of no use when its end is cut off
    for name in ("job", "task", "state", "says", "version", "updates", "submitted_by"):
        add_row(facts, name.replace("_", " "), getattr(detail, name))
    if detail.rule:
        add_row(facts, "rule", detail.rule)
    for name in ("submitted_at", "started_at", "ended_at"):
        if at := getattr(detail, name):
            add_row(facts, name.replace("_", " "), f"{datetime.fromtimestamp(at).astimezone():%F %T%z}")
    result = detail.result or {}
    for name in ("reason", "exported"):
        if result.get(name):
            add_row(facts, name, result[name])
    best = result.get("best")
    if best:
        value = f"version {best['version']}, {best['metric']} {best['value']:.4g}: {best['exported']}"
        add_row(facts, "best", value)
    if "follow_up" in result:
        add_row(facts, "cross-site", _scored_across(result))
    report = check_of(detail)
    check = [] if report is None else list(check_tables(report))
    if models := models_of(detail):
        compared = [table for one in comparisons_of(detail) for table in comparison_tables(one)]
        return [facts, *compared, *model_tables(models), *_declined(detail), *_under_way_and_wrong(detail)]
    if check and detail.updates is None:
        return [facts, *check, *_declined(detail), *_under_way_and_wrong(detail)]
    measured = [*_site_tables(detail, result.get("scores", {})), *_best_table(best or {}), *_sureness(detail, result)]
    return [facts, *check, *measured, *_under_way_and_wrong(detail)]


def _scored_across(result: Mapping[str, Any]) -> str:
    """In which job every site scores what a training has left."""
    local = len(result.get("local_models", ()))
    first = f"the first {MOST_LOCAL} of " if local > MOST_LOCAL else ""
    return f"{result['follow_up']}: every site scores the best, the last and {first}{counted(local, 'local model')}"


def _site_tables(detail: JobDetail, scores: dict[str, Any]) -> list[RenderableType]:
    tables: list[RenderableType] = []
    if detail.sites:
        own = len(_groups(_metric_names(scores), BESIDE)) > 1
        metrics = [] if own else _metric_names(scores)
        older = ["scored version"] if metrics and any("version" in score for score in scores.values()) else []
        table = plain_table("site", "state", "does", "updates", "refused", "mean staleness", *older, *metrics)
        for site, numbers in detail.sites.items():
            score = scores.get(site, {})
            add_row(
                table,
                site,
                numbers.state,
                _does(numbers),
                numbers.updates,
                numbers.refused,
                f"{numbers.mean_staleness:.1f}",
                *([score.get("version", detail.version)] if older and score.get("metrics") else [None] * len(older)),
                *(_metric(score, name) for name in metrics),
            )
        tables.append(table)
        if own:
            tables.extend(_score_tables(f"version {detail.version}, the last", scores))
        if waits := [f"{site} {numbers.data_wait:.1%}" for site, numbers in detail.sites.items() if numbers.data_wait]:
            tables.append(said(f"share of training that waited for data: {', '.join(waits)}"))
        tables.extend(_influence_table(detail))
    for site, score in scores.items():
        if score.get("failed"):
            tables.append(said(f"{site} could not score the last version: {score['failed']}"))
    return [*tables, *_declined(detail)]


def _does(numbers: SiteInJob) -> str | None:
    if not numbers.new_labels:
        return numbers.activity
    return f"{numbers.activity}, {counted(numbers.new_labels, 'new label')}"


def _influence_table(detail: JobDetail) -> Iterator[RenderableType]:
    """How much each site counts in the last versions, and should."""
    known = {site: numbers for site, numbers in detail.sites.items() if numbers.influence is not None}
    if not known:
        return
    table = plain_table("site", "examples", "influence", "its share", "cosine to the versions")
    for site, numbers in known.items():
        cosine = "" if numbers.cosine is None else f"{numbers.cosine:+.2f}"
        add_row(table, site, numbers.num_examples, f"{numbers.influence:.1%}", f"{numbers.share or 0.0:.1%}", cosine)
    yield table


def _best_table(best: dict[str, Any]) -> list[RenderableType]:
    """What the sites measured of the best version at the end, where that is not the last."""
    return list(_score_tables(f"version {best.get('version')}, the best", best.get("scores", {})))


def _score_tables(title: str, scores: dict[str, Any]) -> Iterator[RenderableType]:
    """Sites by metrics, in as many tables as fit into 80 columns; a site that scored another version says which."""
    older = ["scored version"] if any("version" in score for score in scores.values()) else []
    for metrics in _groups(_metric_names(scores), OF_A_TABLE):
        table = plain_table(title, *older, *metrics)
        for site, score in scores.items():
            add_row(table, site, *(score.get("version") for _ in older), *(_metric(score, name) for name in metrics))
        yield table


def _sureness(detail: JobDetail, result: Mapping[str, Any]) -> list[RenderableType]:
    """The 95 % intervals of the last version's scores, and of the best one's where that is another."""
    best = result.get("best") or {}
    last = version_tables(f"version {detail.version}, 95 % intervals", result)
    return [*last, *version_tables(f"version {best.get('version')}, the best", best if "scores" in best else {})]


def _groups(names: Sequence[str], width: int) -> list[list[str]]:
    """The names in order, in groups that stand beside each other in so many columns; a longer one is alone."""
    groups: list[list[str]] = []
    for name in names:
        if groups and sum(len(other) + 2 for other in (*groups[-1], name)) <= width:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _metric_names(scores: dict[str, Any]) -> list[str]:
    return sorted({name for score in scores.values() for name in (*score["metrics"], *score.get("not_finite", ()))})


def _declined(detail: JobDetail) -> list[RenderableType]:
    return [said(f"declined by {site}: {reason}") for site, reason in (detail.declined or {}).items()]


def _under_way_and_wrong(detail: JobDetail) -> list[RenderableType]:
    tables: list[RenderableType] = []
    if detail.receiving:
        table = plain_table("uploading", "chunks", "last one", "update")
        for upload in detail.receiving:
            chunks = f"{upload.chunks} of {upload.count or '?'}"
            add_row(table, upload.site, chunks, f"{span(upload.age_s)} ago", upload.update_id)
        tables.append(table)
    if detail.refusals:
        table = plain_table("refused", "because")
        for refusal in detail.refusals:
            add_row(table, refusal.updates, refusal.reason)
        tables.append(table)
    if detail.incidents:
        table = plain_table("when", "what went wrong, and right again")
        for incident in detail.incidents:
            add_row(table, f"{datetime.fromtimestamp(incident.at).astimezone():%m-%d %H:%M:%S%z}", incident.text)
        tables.append(table)
    return tables


def _metric(score: dict[str, Any], name: str) -> str:
    if name in score.get("not_finite", ()):
        return "not finite"
    return f"{score['metrics'][name]:.3f}" if name in score.get("metrics", {}) else ""


def _activity(doing: Doing) -> str:
    step = f" {doing.step}/{doing.steps}" if doing.steps else ""
    detail = f" ({doing.detail})" if doing.detail else ""
    return f"{doing.activity}{step}{detail}"
