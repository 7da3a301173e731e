"""Two jobs side by side: what they are, their curves over time, and whether one model is better at the same cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fedbus.console.compare import comparisons_of
from fedbus.console.comparing import comparing_spec
from fedbus.console.fetch import AskedInVainError
from fedbus.console.report.compare import compare_sections
from fedbus.console.report.job import kind_of
from fedbus.core.job.status_text import span
from fedbus.core.protocol.answers import JobDetail, JobLine, VersionLine
from fedbus.errors import FedbusError
from fedbus.report import figures
from fedbus.report import page as p
from fedbus.web.pages.seam import Asked, Goto, Shown, Source

MOST_FIGURES = 6
MOST_ASKED = 10
"""Comparisons that were made, the newest, among which one of these two jobs is looked for."""
COMPARE = "compare"
"""The name of jobs that `comparing_spec` makes."""
EVALUATE = "evaluate"


async def page(source: Source, asked: Asked, *, problem: str = "") -> Shown:
    """The jobs `?a=` and `?b=`; without them the form that asks for two."""
    lines = await source.jobs()
    a, b = (asked.query.get(name, "").strip()[:80] for name in ("a", "b"))
    sections: list[p.Section] = []
    made: str | None = None
    if a and b:
        try:
            sections, made = await _compared(source, lines, a, b, now=asked.now)
        except AskedInVainError as exc:
            problem = problem or str(exc)
    context = {
        "page": "compare",
        "title": "Compare two jobs",
        "lines": list(reversed(lines)),
        "a": a,
        "b": b,
        "sections": sections,
        "made": made,
        "problem": problem,
        "can_score": bool(sections) and asked.may_submit and made is None,
    }
    return Shown(template="compare.html", context=context, status=400 if problem else 200)


async def compare(source: Source, asked: Asked) -> Shown | Goto:
    """Let every site measure both models on the same test cases, in a job of its own."""
    a, b = (asked.form.get(name, "")[:80] for name in ("a", "b"))
    try:
        spec, _ = await comparing_spec(source, [a] if a == b else [a, b], [], None)
        job = await source.submit(spec, note=lambda text: None)
    except FedbusError as exc:
        again = Asked(query={"a": a, "b": b}, now=asked.now, may_submit=asked.may_submit)
        return await page(source, again, problem=str(exc))
    return Goto(path=f"/jobs/{job}/scores")


async def _compared(
    source: Source, lines: Sequence[JobLine], a: str, b: str, *, now: float
) -> tuple[list[p.Section], str | None]:
    first, second = await source.job(a), await source.job(b)
    histories = {a: await source.history(a), b: await source.history(b)}
    sections = [p.Section(title="Side by side", blocks=[_facts(first, second, now)])]
    if curves := list(_curves(histories)):
        sections.append(p.Section(title="The way there", blocks=curves))
    made = await _made(source, lines, {a, b})
    if made is not None:
        sections += compare_sections(made, ())
    return sections, None if made is None else made.job


def _facts(first: JobDetail, second: JobDetail, now: float) -> p.Table:
    rows = [(name, get(first, now), get(second, now)) for name, get in _FACTS.items()]
    table: list[tuple[p.Cell, ...]] = [row for row in rows if row[1] or row[2]]
    metrics = sorted({*_means(first), *_means(second)})
    table += [
        (f"{name}, mean of the sites", _number(_means(first).get(name)), _number(_means(second).get(name)))
        for name in metrics
    ]
    table += [(key, _shown(ours), _shown(theirs)) for key, ours, theirs in _differing(first.spec, second.spec)]
    return p.Table(columns=["", f"A: {first.job}", f"B: {second.job}"], rows=table)


def _number(value: float | None) -> str:
    return "" if value is None else p.shown(float(value))


def _took(detail: JobDetail, now: float) -> str:
    return "" if detail.started_at is None else span((detail.ended_at or now) - detail.started_at)


def _best(detail: JobDetail, _: float) -> str:
    best: Mapping[str, Any] = (detail.result or {}).get("best") or {}
    return f"version {best['version']}, {best['metric']} {best['value']:.4g}" if best else ""


_FACTS: Mapping[str, Callable[[JobDetail, float], str]] = MappingProxyType(
    {
        "kind": lambda detail, now: kind_of(detail),
        "task": lambda detail, now: str(detail.task or ""),
        "state": lambda detail, now: detail.state,
        "took": _took,
        "versions": lambda detail, now: str(detail.version or ""),
        "updates": lambda detail, now: str(detail.updates or ""),
        "updates refused": lambda detail, now: str(sum(one.updates for one in detail.refusals) or ""),
        "sites": lambda detail, now: ", ".join(detail.sites),
        "best": _best,
        "rule": lambda detail, now: detail.rule or "",
    }
)


def _means(detail: JobDetail) -> Mapping[str, float]:
    return detail.means or (detail.result or {}).get("means") or {}


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    for key in sorted({*ours, *theirs} - {"name", "task", "kind", "sites"}):
        if ours.get(key) != theirs.get(key):
            yield key, ours.get(key), theirs.get(key)


def _shown(value: object) -> str:
    return "" if value is None else p.shown(str(value))


def _curves(histories: Mapping[str, Sequence[VersionLine]]) -> Iterator[p.Block]:
    names = sorted({name for history in histories.values() for line in history for name in line.means})
    for name in names[:MOST_FIGURES]:
        lines = [
            figures.Line(label=f"{letter}: {job}", points=_points(history, name))
            for letter, (job, history) in zip("AB", histories.items(), strict=False)
        ]
        ends = "; ".join(f"{line.label} ends at {line.points[-1][1]:.3f}" for line in lines if line.points)
        if ends:
            caption = f"{name}, mean of the sites' newest scores, over seconds of training"
            yield figures.line(lines, says=f"{name}: {ends}", x_name="seconds", caption=caption)


def _points(history: Sequence[VersionLine], name: str) -> list[tuple[float, float]]:
    return [(line.seconds, line.means[name]) for line in history if name in line.means and line.seconds is not None]


async def _made(source: Source, lines: Sequence[JobLine], jobs: set[str]) -> JobDetail | None:
    """The newest comparison of exactly these jobs that has come to something."""
    named = [line.job for line in lines if line.name == COMPARE]
    for job in reversed(named[-MOST_ASKED:]):
        detail = await source.job(job)
        models = {model.get("job") for model in detail.spec.get("models", ()) if isinstance(model, Mapping)}
        if models == jobs and comparisons_of(detail):
            return detail
    return None
