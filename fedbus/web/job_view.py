"""One job as the page shows it: what the aggregator answers and what its events come to, as words, rows and curves.

The same words and rows are in the page as it is loaded and in the patches that follow it, see `live`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbus.console import newcomer
from fedbus.console.compare import usual_question
from fedbus.console.curve import Curve
from fedbus.console.kept import Point, Said
from fedbus.console.picture import MOST_SITE_POINTS, Picture
from fedbus.core.job.status_text import span
from fedbus.core.protocol import answers as a
from fedbus.core.protocol.events import NOBODY
from fedbus.runtime.printable import printable
from fedbus.web.words import bytes_words, clock, share

DRAWN = 8
"""So many sites are drawn when nobody has chosen."""
MOST_DRAWN = 12
MOST_ROWS = 500
DIGITS = 6
MEANS, VERSIONS, SCORE, TRAINING = "means", "versions", "score", "training"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the page of a job shows at a moment.

    words: by name, texts. rows: by site, texts by column. staleness: updates by their staleness. influence: by site,
    its own and the share that it should have. curves: by name, those of the job and of the sites that are `drawn`. log:
    the newest events; log_end: the number of the last one. stamp: of the curves; whose: names the picture, for stamps
    of another one say nothing. number: of the view; messages: by the number of another view, what
    brings who has seen that to this one.
    """

    words: Mapping[str, str]
    rows: Mapping[str, Mapping[str, str]]
    buffer: Sequence[int] = ()
    staleness: Sequence[int] = ()
    influence: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    drawn: Sequence[str] = ()
    curves: Mapping[str, Curve] = field(default_factory=dict)
    log: Sequence[Said] = ()
    log_end: int = 0
    stamp: int = 0
    whose: str = ""
    number: int = -1
    messages: dict[int, str] = field(default_factory=dict)
    ended: bool = False


def view_of(
    detail: a.JobDetail,
    sites: Sequence[a.SiteLine],
    picture: Picture,
    *,
    drawn: Sequence[str],
    now: float,
    whose: str,
    number: int = 0,
) -> View:
    """Put together what is known. picture: of its events, or `picture_of` its history."""
    lines = {line.site: line for line in sites}
    names = sorted({*detail.sites, *picture.sites, *(detail.declined or {})})[:MOST_ROWS]
    rows = {name: _row(name, detail, picture, lines.get(name)) for name in names}
    known = {name: one for name, one in detail.sites.items() if one.influence is not None and name in rows}
    return View(
        words=_words(detail, picture, now=now),
        rows=rows,
        buffer=_buffer(detail, picture),
        staleness=tuple(picture.staleness),
        influence={name: (_short(one.influence or 0.0), _short(one.share or 0.0)) for name, one in known.items()},
        drawn=tuple(drawn),
        curves=dict(_drawn_curves(picture, drawn)),
        log=tuple(picture.said),
        log_end=picture.changes,
        stamp=picture.changes,
        whose=whose,
        number=number,
        ended=detail.ended_at is not None,
    )


def sites_drawn(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The sites whose curves are drawn: those that are wanted and there, or the first few."""
    chosen = [name for name in dict.fromkeys(wanted) if name in names][:MOST_DRAWN]
    return chosen or list(names)[:DRAWN]


def picture_of(detail: a.JobDetail, history: Sequence[a.VersionLine]) -> Picture:
    """A job whose events are not there any more, from its history: curves, and what went wrong."""
    found = Picture(job=detail.job, state=detail.state, ended=detail.ended_at is not None, began_at=detail.started_at)
    for line in history:
        found.version, found.last_version_at = line.version, line.at
        found.newest_versions.append(Point(version=line.version, at=line.at))
        found.versions.put(line.version, line.at, {"updates": float(line.updates)})
        if line.means:
            found.means.put(line.version, line.at, line.means)
        for site, metrics in line.scores.items():
            found.scores.setdefault(site, Curve(MOST_SITE_POINTS)).put(line.version, line.at, metrics)
    for incident in detail.incidents:
        found.said.append(Said(at=incident.at, kind=incident.kind, site=NOBODY, text=incident.text))
    found.changes = max(len(history), len(found.said))
    return found


def _words(detail: a.JobDetail, picture: Picture, *, now: float) -> dict[str, str]:
    version = detail.version if detail.version is not None else picture.version
    updates = detail.updates if detail.updates is not None else picture.updates
    refused = sum(one.refused for one in detail.sites.values()) or picture.refused
    rate = picture.versions_per_min(now)
    return {
        "state": printable(detail.state),
        "waiting": newcomer.waiting(detail),
        "learning": newcomer.learning(picture.means, picture.scores),
        "slow": newcomer.slow(detail.sites),
        "contributed": newcomer.contributed(detail.sites),
        "left": newcomer.left(picture, bytes_words=_bytes_of_sites(picture)),
        "version": f"{version:,}",
        "updates": f"{updates:,}",
        "refused": f"{refused:,}",
        "rate": f"{rate:.1f}" if rate < 100 else f"{rate:.0f}",
        "up": bytes_words(picture.update_bytes) if picture.whole else "not known",
        "down": bytes_words(picture.version_bytes) if picture.whole else "not known",
        "ratio": _ratio(detail, picture),
        "buffer": " of ".join(str(number) for number in _buffer(detail, picture)),
        "rule": printable(detail.rule or ""),
        "running": _running(detail, now),
        "refusals": "; ".join(f"{one.updates:,} of: {printable(one.reason)}" for one in detail.refusals[:5]),
    }


def _ratio(detail: a.JobDetail, picture: Picture) -> str:
    """How much smaller than the params updates and versions were; "" where it is not known."""
    raw = detail.params_bytes
    if not raw or not picture.whole or not picture.update_bytes or not picture.version_bytes:
        return ""
    up, down = raw * picture.updates / picture.update_bytes, raw * picture.version / picture.version_bytes
    return f"{up:.1f} to 1 up, {down:.1f} to 1 down"


def _buffer(detail: a.JobDetail, picture: Picture) -> tuple[int, ...]:
    if detail.buffer is not None:
        return detail.buffer.have, detail.buffer.size
    return (len(picture.buffer),) if picture.running else ()


def _bytes_of_sites(picture: Picture) -> dict[str, str]:
    """What left each site, in words; under no name: all of it."""
    of_sites = {name: bytes_words(one.update_bytes) for name, one in picture.sites.items()}
    return {**of_sites, "": bytes_words(picture.update_bytes)}


def _running(detail: a.JobDetail, now: float) -> str:
    if detail.started_at is None:
        return f"submitted {clock(detail.submitted_at)}"
    until = detail.ended_at if detail.ended_at is not None else now
    return f"began {clock(detail.started_at)}, {'took' if detail.ended_at else 'for'} {span(until - detail.started_at)}"


def _row(name: str, detail: a.JobDetail, picture: Picture, line: a.SiteLine | None) -> dict[str, str]:
    gave, seen = detail.sites.get(name, a.SiteInJob()), picture.site(name)
    declined = (detail.declined or {}).get(name)
    state = "declined" if declined is not None else gave.state or (line.state if line else "") or str(seen.presence)
    metric = usual_question(sorted(seen.metrics)) or ""
    return {
        "state": printable(state),
        "does": printable(declined or _does(detail.job, gave, line)),
        "updates": f"{gave.updates:,}",
        "refused": f"{gave.refused:,}" if gave.refused else "",
        "staleness": f"{gave.mean_staleness:.1f}" if gave.updates else "",
        "influence": share(gave.influence),
        "share": share(gave.share),
        "left": bytes_words(seen.update_bytes) if picture.whole and seen.updates else "",
        "score": f"{printable(metric)} {seen.metrics[metric]:.3f}" if metric else "",
        "trouble": printable(seen.trouble),
    }


def _does(job: str, gave: a.SiteInJob, line: a.SiteLine | None) -> str:
    """What a site does for the job now, with its step and how long it still takes."""
    doing = None if line is None else line.jobs.get(job)
    if doing is None:
        return gave.activity or ""
    steps = f"step {doing.step}/{doing.steps}" if doing.steps else ""
    left = f"~{span(doing.left_s)} left" if doing.left_s is not None else ""
    return ", ".join(filter(None, (f"{doing.activity} {steps}".strip(), left, doing.detail)))


def _drawn_curves(picture: Picture, drawn: Sequence[str]) -> Iterator[tuple[str, Curve]]:
    yield MEANS, picture.means
    yield VERSIONS, picture.versions
    for kind, curves in ((SCORE, picture.scores), (TRAINING, picture.training)):
        for name in drawn:
            if name in curves:
                yield f"{kind}:{name}", curves[name]


def curve_from(curve: Curve, start: int) -> dict[str, Any]:
    """The points of a curve from an index on, as JSON-able columns."""
    return {
        "start": start,
        "versions": curve.versions[start:].tolist(),
        "at": [round(at, 1) for at in curve.at[start:]],
        "columns": {name: [_short(value) for value in column[start:]] for name, column in curve.columns.items()},
    }


def said_as_told(said: Said) -> dict[str, Any]:
    """A line of the log for programs."""
    return {"at": said.at, "kind": printable(said.kind), "site": printable(said.site), "text": printable(said.text)}


def _short(value: float) -> float | None:
    """A number as JSON has it; None for one that is not finite."""
    return float(f"{value:.{DIGITS}g}") if _finite(value) else None


def _finite(value: float) -> bool:
    return math.isfinite(value)
