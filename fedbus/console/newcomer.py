"""What somebody asks of a job who sees it for the first time, each answered in one sentence of what is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from fedbus.console.compare import lower_is_better, usual_question
from fedbus.console.curve import Curve
from fedbus.console.picture import Picture
from fedbus.core.job.membership import SiteState
from fedbus.core.job.status_text import in_words
from fedbus.core.protocol.answers import JobDetail, SiteInJob
from fedbus.core.words import counted
from fedbus.runtime.printable import printable

MOST_NAMED = 4
"""So many sites are named in a sentence; a table has all."""
STALER = 1.0
"""Versions by which a site's updates must be older than the median site's to be called slow."""
FEWER = 0.5
"""Or it sent fewer than this part of what the median site sent."""
STILL = 0.25
"""No longer learning: the best score is older than this part of all scored versions."""


Points = list[tuple[int, float]]


def learning(means: Curve, scores: Mapping[str, Curve]) -> str:
    """Whether the sites' scores become better, in the metric that is most likely the question.

    Each site is held against itself: their mean also moves when another site begins to score.
    """
    name = usual_question(sorted(means.columns))
    known = _points(means, name or "")
    if name is None or not known:
        return "Not known yet: no site has scored a version."
    (first_at, first), (last_at, last) = known[0], known[-1]
    if len(known) == 1:
        return f"Not known yet: {printable(name)} is {last:.3f} at version {last_at:,}, the only one that was scored."
    lower = lower_is_better(name)
    way = f"mean {printable(name)} {first:.3f} at version {first_at:,}, {last:.3f} at version {last_at:,}"
    if lower is None:
        return f"It moves: {way}."
    sign = -1.0 if lower else 1.0
    best_at, best = max(known, key=lambda point: sign * point[1])
    way += "" if best_at == last_at else f"; the best was {best:.3f} at version {best_at:,}"
    sites = [curve for curve in scores.values() if len(curve) > 1 and name in curve.columns]
    better = sum(sign * _change(curve, name) > 0.0 for curve in sites or [means])
    where = f", at {better} of {counted(len(sites), 'site')}" if sites else ""
    if 2 * better <= len(sites or [means]):
        return f"Not so far{where if better else ''}: {way}."
    going_on = any(_still_better(_points(curve, name), sign) for curve in sites or [means])
    return f"Yes{where}: {way}." if going_on else f"Not any more: {way}."


def _points(curve: Curve, name: str) -> Points:
    column = curve.columns.get(name, ())
    return [(v, value) for v, value in zip(curve.versions, column, strict=False) if math.isfinite(value)]


def _change(curve: Curve, name: str) -> float:
    """The last number of a column less its first one; looked for from the ends, for this is asked at every look."""
    column = curve.columns[name]
    first = next(filter(math.isfinite, column), 0.0)
    return next(filter(math.isfinite, reversed(column)), 0.0) - first


def _still_better(points: Points, sign: float) -> bool:
    """Whether the best of them is among the last, or there are too few to say that it is not."""
    values = [sign * value for _, value in points]
    if not values:
        return False
    since = len(values) - 1 - max(range(len(values)), key=lambda index: values[index])
    return since <= max(3, STILL * len(values))


def slow(sites: Mapping[str, SiteInJob]) -> str:
    """Whose updates come late or seldom, and who is not there."""
    if len(sites) < 2:
        return "There is no second site to compare with."
    staleness = median(one.mean_staleness for one in sites.values())
    updates = median(one.updates for one in sites.values())
    behind = {
        name: one
        for name, one in sites.items()
        if (one.updates and one.mean_staleness > staleness + STALER) or one.updates < FEWER * updates
    }
    away = [name for name, one in sorted(sites.items()) if one.state in (SiteState.LOST, SiteState.LEFT)]
    order = sorted(behind, key=lambda name: (sites[name].updates, -sites[name].mean_staleness))
    parts = [_behind(name, sites[name]) for name in order[:MOST_NAMED]] + _more(order)
    said = f"{'; '.join(parts)}; the median site: {_count(updates)}, {staleness:.1f} versions old." if parts else ""
    gone = f"Not there: {in_words([*away[:MOST_NAMED], *_more(away)])}." if away else ""
    return " ".join(filter(None, (said or "Nobody: the sites keep pace.", gone)))


def contributed(sites: Mapping[str, SiteInJob]) -> str:
    """What each site gave to the model: updates, samples, and its part of what the last versions apply."""
    given = {name: one for name, one in sites.items() if one.updates}
    if not given:
        return "Nothing yet: no update is in the model."
    order = sorted(given, key=lambda name: (-(given[name].influence or 0.0), -given[name].updates, name))
    return "; ".join([*(_gave(name, given[name]) for name in order[:MOST_NAMED]), *_more(order)]) + "."


def waiting(detail: JobDetail) -> str:
    """Why it waits, what it does, or how it ended."""
    if detail.ended_at is not None:
        reason = str((detail.result or {}).get("reason") or detail.says or "")
        return f"It does not: it is {printable(detail.state)}" + (f", {printable(reason)}." if reason else ".")
    said = printable(detail.says)
    return f"{said[:1].upper()}{said[1:]}." if said else "It does not wait."


def left(picture: Picture, *, bytes_words: Mapping[str, str]) -> str:
    """What left the sites for this job; `bytes_words`: by site how much that is, in words, "" for all of them."""
    never = "No sample ever does."
    sites = {name: one for name, one in picture.sites.items() if one.updates}
    if not sites or not picture.whole:
        return f"Updates, scores and counts. {never}"
    order = sorted(sites, key=lambda name: (-sites[name].update_bytes, name))
    each = [f"{name} {bytes_words[name]}" for name in order[:MOST_NAMED]]
    told = "; ".join([*each, *_more(order)])
    return f"{bytes_words['']} of compressed changes in {counted(picture.updates, 'update')}: {told}. {never}"


def _behind(name: str, one: SiteInJob) -> str:
    if not one.updates:
        return f"{name} has sent nothing yet"
    return f"{name}: {counted(one.updates, 'update')}, {one.mean_staleness:.1f} versions old on average"


def _gave(name: str, one: SiteInJob) -> str:
    samples = f" of {one.num_examples:,} samples" if one.num_examples else ""
    influence = f", {one.influence:.0%} of the last versions" if one.influence is not None else ""
    return f"{name} {counted(one.updates, 'update')}{samples}{influence}"


def _more(names: Sequence[str]) -> list[str]:
    return [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []


def _count(updates: float) -> str:
    return f"{updates:g} update{'' if updates == 1 else 's'}"
