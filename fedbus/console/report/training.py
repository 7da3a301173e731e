"""What a training has come to: the sites' part in it, scores of the last and the best version, the curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedbus.core.protocol.answers import JobDetail, VersionLine
from fedbus.report import figures
from fedbus.report import page as p

MOST_FIGURES = 8
LAST, BEST = 0, 1
OVER = "over"


def training_sections(detail: JobDetail, history: Sequence[VersionLine]) -> Iterator[p.Section]:
    """Scores, sites and curve, each where there is something to show."""
    if scores := list(_scores(detail)):
        yield p.Section(title="What the sites measured", blocks=scores)
    if curve := list(_curve(history)):
        yield p.Section(title="The way there", blocks=curve)
    if detail.sites:
        yield p.Section(title="The sites' part", blocks=list(_sites(detail)))


def _scores(detail: JobDetail) -> Iterator[p.Block]:
    """Of every metric the last and the best version, side by side, per site."""
    result: Mapping[str, Any] = detail.result or {}
    last: Mapping[str, Any] = result.get("scores") or {}
    best: Mapping[str, Any] = result.get("best") or {}
    if best:
        is_last = best["version"] == detail.version
        last_one = "which is the last one" if is_last else f"the last one is {detail.version}"
        text = (
            f"The best version is {best['version']}, {best['metric']} {best['value']:.4g} over the sites; {last_one}."
        )
        yield p.Text(text=f"{text} Each site measured on its own test data.")
    of_best: Mapping[str, Any] = best.get("scores") or {}
    names = sorted({name for score in (*last.values(), *of_best.values()) for name in score.get("metrics", {})})
    for name in names[:MOST_FIGURES]:
        if sure := [*_sure(result, name, f"last ({detail.version})", LAST), *_sure(best, name, "best", BEST)]:
            sure.sort(key=lambda row: (row.label.startswith(OVER), row.label, row.series))
            shown = "; ".join(f"{row.label} {row.value:.3f}" for row in sure[:20])
            yield figures.intervals(
                sure, says=f"{name}, per site: {shown}", caption=f"{name}, per site, with 95 % intervals"
            )
            continue
        rows = [*_bars(last, name, f"last ({detail.version})", LAST), *_bars(of_best, name, "best", BEST)]
        rows.sort(key=lambda bar: (bar.label, bar.series))
        shown = "; ".join(f"{bar.label} {bar.value:.3f}" for bar in rows[:20])
        yield figures.bars(rows, says=f"{name}, per site: {shown}", caption=f"{name}, per site", high=_top(rows))
    if len(names) > MOST_FIGURES:
        columns = ["site", *names]
        metrics = ((site, score.get("metrics", {})) for site, score in last.items())
        yield p.Table(columns=columns, rows=[(site, *(found.get(name) for name in names)) for site, found in metrics])


def _bars(scores: Mapping[str, Any], name: str, what: str, series: int) -> Iterator[figures.Bar]:
    for site, score in scores.items():
        if name in score.get("metrics", {}):
            note = f"{what}, n = {score.get('num_examples', 0)}"
            yield figures.Bar(label=site, value=score["metrics"][name], note=note, series=series)


def _sure(scored: Mapping[str, Any], name: str, what: str, series: int) -> Iterator[figures.Interval]:
    """Points with their intervals, where a site says how sure it is, and over the sites; none when no site does."""
    scores: Mapping[str, Any] = scored.get("scores") or {}
    if not any(name in score.get("intervals", {}) for score in scores.values()):
        return
    for site, score in scores.items():
        if name in score.get("metrics", {}):
            of_site = score.get("intervals", {}).get(name, {})
            cases = of_site.get("cases") or score.get("num_examples", 0)
            yield _point(site, score["metrics"][name], of_site, f"{what}, n = {cases}", series)
    if name in (overall := scored.get("intervals", {})):
        found = overall[name]
        note = f"{what}, n = {found['cases']}"
        yield _point(f"{OVER} {found['sites']} sites", found["value"], found, note, series)


def _point(label: str, value: float, found: Mapping[str, Any], note: str, series: int) -> figures.Interval:
    return figures.Interval(
        label=label, value=value, low=found.get("low"), high=found.get("high"), note=note, series=series
    )


def _top(rows: Sequence[figures.Bar]) -> float | None:
    """Shares are drawn up to 1, so that .9 looks like .9."""
    return 1.0 if all(0 <= bar.value <= 1 for bar in rows) else None


def _curve(history: Sequence[VersionLine]) -> Iterator[p.Block]:
    names = sorted({name for line in history for name in line.means})
    for name in names[:MOST_FIGURES]:
        points = [(float(line.version), line.means[name]) for line in history if name in line.means]
        if len(points) > 1:
            says = f"{name} over {len(points)} versions, from {points[0][1]:.3f} to {points[-1][1]:.3f}"
            caption = f"{name}: mean of the sites' newest scores, weighted by their examples"
            yield figures.line([figures.Line(label=name, points=points)], says=says, caption=caption)


def _sites(detail: JobDetail) -> Iterator[p.Block]:
    total = sum(numbers.updates for numbers in detail.sites.values()) or 1
    rows = [
        figures.Bar(label=site, value=float(numbers.updates), note=f"({numbers.updates / total:.0%})")
        for site, numbers in detail.sites.items()
    ]
    says = "updates per site: " + "; ".join(f"{bar.label} {bar.value:.0f}" for bar in rows[:20])
    yield figures.bars(rows, says=says, caption="updates that are in the model, per site")
    scores: Mapping[str, Any] = (detail.result or {}).get("scores") or {}
    examples = {site: score.get("num_examples") for site, score in scores.items()}
    yield p.Table(
        columns=["site", "test examples", "updates", "refused", "mean staleness", "state"],
        rows=[
            (site, examples.get(site), numbers.updates, numbers.refused, numbers.mean_staleness, numbers.state)
            for site, numbers in detail.sites.items()
        ],
        caption="staleness: how many versions older than the newest one a site's base was, on average",
    )
    yield from _influence(detail)


def _influence(detail: JobDetail) -> Iterator[p.Block]:
    known = {site: numbers for site, numbers in detail.sites.items() if numbers.influence is not None}
    if not known:
        return
    yield p.Table(
        columns=["site", "training examples", "influence", "its share", "cosine to the versions"],
        rows=[
            (site, numbers.num_examples, f"{numbers.influence:.1%}", f"{numbers.share or 0.0:.1%}", numbers.cosine)
            for site, numbers in known.items()
        ],
        caption="influence: its part of what the last versions apply; share: what that would be by its examples alone",
    )
