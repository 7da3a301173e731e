"""Figures as inline SVG: bars, points with their interval, a matrix, a line over versions. Colours are the page's.

What differs differs in shape or words too, not in colour alone. Values that are not finite have no mark and are named.
Sizes are bounded: rows and columns beyond MOST_ROWS and MOST_COLUMNS are counted, points of a line are thinned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fedbus.report.page import Figure
from fedbus.runtime.printable import printable

MOST_ROWS = 60
MOST_COLUMNS = 20
MOST_POINTS = 400
MOST_LINES = 8
WIDTH = 720
ROW = 22
CHAR = 6.6
"""Width of a usual character of the figures' 12 px text."""
FARTHEST = 1e300
"""Numbers beyond it are drawn at it, and those that are nearer than 1 / FARTHEST at one place: a site may say any."""
LABEL_CHARS = 30
INTERVAL_CHARS = 48
DASHES = ("", "6 3", "2 3", "8 3 2 3")
BAR = Markup('<rect class="s{} bar" x="{:.1f}" y="{}" width="{:.1f}" height="{}" rx="2"/>')
POLYLINE = Markup('<polyline class="s{} line" stroke-dasharray="{}" points="{}"/>')
LABEL = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}<title>{}</title></text>')
CENTRED = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle"{}>{}{}</text>')


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A value with its name, and what stands behind it; a series has its own colour and is named in the note."""

    label: str
    value: float
    note: str = ""
    series: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its interval; low and high None: none is known."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    series: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A cell of a matrix: a value, and a small line below it, such as the count or the interval."""

    value: float
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points (x, y) in order of x."""

    label: str
    points: Sequence[tuple[float, float]]


def bars(rows: Sequence[Bar], *, says: str, caption: str = "", low: float = 0.0, high: float | None = None) -> Figure:
    """Horizontal bars from `low` (or 0, if a value is below it); `high` None: as far as the largest value."""
    kept = rows[:MOST_ROWS]
    values = [bar.value for bar in kept if math.isfinite(bar.value)]
    first = min([low, *values])
    last = max([first, *values]) if high is None else max([high, *values])
    left = _label_width([bar.label for bar in kept])
    right = _label_width([f"{_number(bar.value)} {bar.note}" for bar in kept])
    x = _scale(first, last, left, WIDTH - right)
    zero = x(min(max(0.0, first), last))
    parts = []
    for number, bar in enumerate(kept):
        y = number * ROW
        parts.append(_label(bar.label, left, y))
        if not math.isfinite(bar.value):
            parts.append(_text(left + 4, y, f"not finite {bar.note}", quiet=True))
            continue
        start, end = sorted((zero, x(bar.value)))
        parts.append(BAR.format(_series(bar.series), start, y + 4, max(1.0, end - start), ROW - 8))
        parts.append(_text(max(end, zero) + 6, y, f"{_number(bar.value)} {bar.note}".strip()))
    return _figure(parts, len(kept), len(rows), says, caption)


def intervals(
    rows: Sequence[Interval], *, says: str, caption: str = "", reference: float | None = None, digits: int = 3
) -> Figure:
    """One row each: a point, its interval, and the numbers; `reference` is a vertical line, such as no difference."""
    kept = rows[:MOST_ROWS]
    known = [v for row in kept for v in (row.value, row.low, row.high, reference) if v is not None and math.isfinite(v)]
    texts = [_interval_text(row, digits) for row in kept]
    left, right = _label_width([row.label for row in kept]), _label_width(texts, most=INTERVAL_CHARS)
    x = _scale(*_widened(known), left + 8, WIDTH - right - 8)
    bottom = len(kept) * ROW
    parts = [_axis(x, known, bottom)]
    if reference is not None:
        parts.append(_rule(x(reference), bottom))
    for number, row in enumerate(kept):
        y = number * ROW
        parts += [_label(row.label, left, y), _text(WIDTH - right, y, texts[number])]
        if math.isfinite(row.value):
            parts.append(_whisker(row, x, y + ROW / 2))
    return _figure(parts, len(kept) + 1, len(rows) + 1, says, caption)


def matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    entries: Mapping[tuple[int, int], Entry],
    *,
    says: str,
    caption: str = "",
    higher_is_darker: bool = True,
) -> Figure:
    """Cells with value and note, darker for higher values (or lower ones); a cell that has no entry is dashed."""
    shown_rows, shown_columns = rows[:MOST_ROWS], columns[:MOST_COLUMNS]
    left = _label_width(shown_rows)
    wide = min(110.0, (WIDTH - left) / max(1, len(shown_columns)))
    finite = [entry.value for entry in entries.values() if math.isfinite(entry.value)]
    low, high = _bounds(finite)
    parts = [
        _centred(left + (at + 0.5) * wide, 0, _short(name, _letters(wide)), quiet=True, full=name)
        for at, name in enumerate(shown_columns)
    ]
    for i, name in enumerate(shown_rows):
        y = ROW + i * 2 * ROW
        parts.append(_label(name, left, y + ROW / 2))
        for j in range(len(shown_columns)):
            entry = entries.get((i, j))
            share = _share(entry, low, high) if higher_is_darker else 1 - _share(entry, low, high)
            parts.append(_cell(left + j * wide, y, wide, entry, share))
    left_out = f"{len(rows)} rows and {len(columns)} columns, not all are shown"
    cut = len(rows) > len(shown_rows) or len(columns) > len(shown_columns)
    return _drawn(parts, ROW + len(shown_rows) * 2 * ROW, says, "; ".join(filter(None, (caption, left_out * cut))))


def line(lines: Sequence[Line], *, says: str, x_name: str = "version", caption: str = "") -> Figure:
    """Lines over a common axis, each with its own colour and dashes, named at their ends and in the caption."""
    kept = [Line(label=one.label, points=_thinned(one.points)) for one in lines[:MOST_LINES]]
    points = [point for one in kept for point in one.points]
    height, bottom, left = 220, 200, 48.0
    right = _label_width([one.label for one in kept])
    x = _scale(*_bounds([p[0] for p in points]), left, WIDTH - right)
    y = _scale(*_widened([p[1] for p in points]), bottom - 6, 10)
    parts = [Markup('<path class="axis" d="M{0:.1f} 10V{1}H{2:.1f}"/>').format(left, bottom, WIDTH - right)]
    parts += [_text(0, y(tick) - ROW / 2, _tick(tick), quiet=True) for tick in _ticks([p[1] for p in points])]
    parts += [_centred(x(at), bottom, f"{at:g}", quiet=True) for at in _bounds([p[0] for p in points])]
    parts.append(_centred((left + WIDTH - right) / 2, bottom, x_name, quiet=True))
    ends = _spread([y(one.points[-1][1]) if one.points else 0.0 for one in kept])
    for number, one in enumerate(kept):
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in one.points)
        parts.append(POLYLINE.format(_series(number), DASHES[number % len(DASHES)], path))
        if one.points:
            parts.append(_text(WIDTH - right + 6, ends[number] - ROW / 2, _short(one.label, LABEL_CHARS)))
    return _drawn(parts, height, says, _and_more(caption, len(kept), len(lines), "lines"))


def _whisker(row: Interval, x: Callable[[float], float], y: float) -> Markup:
    series, at = _series(row.series), x(row.value)
    point = Markup('<circle class="s{} bar" cx="{:.1f}" cy="{:.1f}" r="4"/>').format(series, at, y)
    ends = _ends(row)
    if ends is None:
        return point
    low, high = map(x, ends)
    path = f"M{low:.1f} {y - 4:.1f}V{y + 4:.1f}M{low:.1f} {y:.1f}H{high:.1f}M{high:.1f} {y - 4:.1f}V{y + 4:.1f}"
    return Markup('<path class="s{} whisker" d="{}"/>').format(series, path) + point


def _interval_text(row: Interval, digits: int) -> str:
    value = f"{row.value:.{digits}f}" if math.isfinite(row.value) else "not finite"
    ends = _ends(row)
    interval = f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else ""
    return " ".join(filter(None, (value, interval, row.note)))


def _ends(row: Interval) -> tuple[float, float] | None:
    if row.low is None or row.high is None or not (math.isfinite(row.low) and math.isfinite(row.high)):
        return None
    return row.low, row.high


def _axis(x: Callable[[float], float], values: Sequence[float], bottom: float) -> Markup:
    ticks = [
        Markup('<path class="axis" d="M{0:.1f} 0V{1}"/>').format(x(tick), bottom)
        + _centred(x(tick), bottom, _tick(tick), quiet=True)
        for tick in _ticks(values)
    ]
    return Markup("").join(ticks)


def _rule(at: float, bottom: float) -> Markup:
    return Markup('<path class="s1 line" stroke-dasharray="4 3" d="M{0:.1f} 0V{1}"/>').format(at, bottom)


def _cell(x: float, y: float, wide: float, entry: Entry | None, share: float) -> Markup:
    box = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" fill-opacity="{:.2f}"/>')
    if entry is None:
        return box.format("none", x + 2, y + 2, wide - 4, 2 * ROW - 4, 0)
    parts = box.format("cell", x, y, wide, 2 * ROW, 0.08 + 0.37 * share)
    value = _number(entry.value) if math.isfinite(entry.value) else "not finite"
    parts += _centred(x + wide / 2, y + (2 if entry.note else ROW / 2), value)
    return parts + _centred(x + wide / 2, y + ROW - 4, _short(entry.note, _letters(wide)), quiet=True, full=entry.note)


def _letters(wide: float) -> int:
    return max(3, int(wide / CHAR))


def _share(entry: Entry | None, low: float, high: float) -> float:
    if entry is None or not math.isfinite(entry.value):
        return 0.0
    return _scale(low, high, 0.0, 1.0)(entry.value) if high > low else 0.5


def _figure(parts: Sequence[Markup], rows: int, all_rows: int, says: str, caption: str) -> Figure:
    return _drawn(parts, max(1, rows) * ROW, says, _and_more(caption, rows, all_rows, "rows"))


def _drawn(parts: Sequence[Markup], height: float, says: str, caption: str) -> Figure:
    body = Markup("\n").join(parts)
    head = Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {:.0f}">\n{}\n</svg>')
    return Figure(svg=head.format(WIDTH, height, body), says=says, caption=caption)


def _and_more(caption: str, kept: int, all_of_them: int, what: str) -> str:
    more = f"and {all_of_them - kept} more {what}" if all_of_them > kept else ""
    return "; ".join(filter(None, (caption, more)))


def _label(text: str, left: float, y: float) -> Markup:
    return LABEL.format(left - 8, y + 15, _short(text, LABEL_CHARS), printable(text, most=200))


def _text(x: float, y: float, text: str, *, quiet: bool = False) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}"{}>{}</text>').format(x, y + 15, _quiet(quiet), _short(text, 60))


def _centred(x: float, y: float, text: str, *, quiet: bool = False, full: str = "") -> Markup:
    title = Markup("<title>{}</title>").format(printable(full, most=200)) if full and full != text else ""
    return CENTRED.format(x, y + 15, _quiet(quiet), _short(text, 60), title)


def _quiet(quiet: bool) -> Markup:
    return Markup(' class="q"') if quiet else Markup("")


def _short(text: str, most: int) -> str:
    text = printable(text, most=200)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _label_width(labels: Sequence[str], *, most: int = LABEL_CHARS) -> float:
    return 12 + CHAR * max((min(len(printable(label, most=200)), most) for label in labels), default=0)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    if value == round(value) and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.3f}" if 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def _tick(value: float) -> str:
    return f"{value:.4g}"


def _series(number: int) -> int:
    return number % len(DASHES)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    low, high = _bounds([low, high])
    span = high - low if high > low else 1.0
    return lambda value: start + (min(max(value, low), high) - low) / span * (end - start)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = (min(max(value, -FARTHEST), FARTHEST) for value in (min(values), max(values)))
    return (low, high) if high - low > 1 / FARTHEST else (low, low)


def _widened(values: Sequence[float]) -> tuple[float, float]:
    low, high = _bounds(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    return low - room, high + room


def _ticks(values: Sequence[float]) -> list[float]:
    """Up to five round numbers within the values."""
    low, high = _bounds(values)
    if not high > low:
        return [low]
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next((size * factor for factor in (1, 2, 5) if size * factor >= raw), size * 10)
    first = math.ceil(low / step)
    return [step * number for number in range(first, math.floor(high / step) + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    finite = [point for point in points if all(map(math.isfinite, point))]
    if len(finite) <= MOST_POINTS:
        return finite
    step = (len(finite) - 1) / (MOST_POINTS - 1)
    return [finite[round(number * step)] for number in range(MOST_POINTS)]


def _spread(heights: Sequence[float]) -> list[float]:
    """The same heights, moved apart so that labels at them do not cover each other."""
    placed = list(heights)
    last = -math.inf
    for number in sorted(range(len(heights)), key=lambda at: heights[at]):
        placed[number] = last = max(heights[number], last + 14)
    return placed
