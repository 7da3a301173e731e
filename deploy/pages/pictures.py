"""The pictures of "How updates become versions": small SVG files, in light and dark, of numbers that the rules give.

Each has a ground of its own, so that it can be read wherever it stands; whether that is light or dark is what the
reader's system prefers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from fedbus.core.rules import staleness as rules

FOLDER = Path(__file__).parents[1] / "docs"
STYLE = """
.ground{fill:#fff;stroke:#d0d7de} .box{fill:#f6f8fa;stroke:#59636e} .grid{stroke:#d0d7de} .on{fill:#fff}
text{font:14px system-ui,sans-serif;fill:#1f2328} .quiet{fill:#59636e} .strong{font-weight:600}
.line{stroke:#59636e;fill:none;stroke-width:1.5} .tip{fill:#59636e}
.fill{fill:var(--c)} .draw{stroke:var(--c);fill:none;stroke-width:2.5}
.a{--c:#1d4ed8} .b{--c:#b45309} .c{--c:#047857} .d{--c:#7e22ce}
@media (prefers-color-scheme:dark){
.ground{fill:#12171d;stroke:#3d444d} .box{fill:#1f262e;stroke:#a0abb6} .grid{stroke:#3d444d} .on{fill:#0b0f14}
text{fill:#e6edf3} .quiet{fill:#a0abb6} .line{stroke:#a0abb6} .tip{fill:#a0abb6}
.a{--c:#8ab4ff} .b{--c:#fbbf24} .c{--c:#4ade9b} .d{--c:#d8a8ff}}
"""
SITES = (("north", "a", 2.0), ("south", "b", 3.1), ("island", "c", 5.6))
"""Name, colour, and seconds that a site needs for its local steps."""


def pictures() -> dict[str, str]:
    """File name to SVG."""
    return {
        "aggregation-update.svg": update(),
        "aggregation-time.svg": time_line(),
        "aggregation-staleness.svg": staleness(),
        "aggregation-influence.svg": influence(),
    }


def write(folder: Path = FOLDER) -> None:
    for name, text in pictures().items():
        (folder / name).write_text(text, "utf-8")


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    tip = '<marker id="t" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img"><title>{escape(title)}</title><style>{STYLE}</style>',
            f'<defs>{tip}<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>',
            f'<rect class="ground" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, look: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{look}" text-anchor="{anchor}">{escape(text)}</text>'


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path class="line" marker-end="url(#t)" d="M{x:g} {y:g}L{to_x:g} {to_y:g}"/>'


def _rect(x: float, y: float, width: float, height: float, look: str) -> str:
    return f'<rect class="{look}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3"/>'


def update() -> str:
    """What an update is: where a site began, where it came to, and what of it travels."""
    parts = [
        _text(24, 32, "at the site", "strong"),
        _text(430, 32, "what leaves it", "strong"),
        '<circle class="a fill" cx="60" cy="190" r="6"/>',
        '<circle class="c fill" cx="310" cy="80" r="6"/>',
        '<path class="line" stroke-dasharray="2 4" d="M60 190L90 130L135 165L170 105L215 140L250 75L310 80"/>',
        '<path class="d draw" marker-end="url(#t)" d="M68 186L300 85"/>',
        _text(24, 218, "version 12: the base version"),
        _text(380, 66, "local params", "", "end"),
        _text(66, 96, "20 local steps", "quiet"),
        _text(200, 176, "delta = local - base", "strong"),
        _arrow(350, 130, 420, 130),
        _rect(430, 48, 296, 168, "box"),
        _text(446, 76, "update", "strong"),
        _text(446, 102, "delta, in 8 bits a number or fewer"),
        _text(446, 126, "base version 12"),
        _text(446, 150, "212 examples, 20 steps, 1.3 s"),
        _text(446, 174, "metrics"),
        _text(446, 198, "id: site, its start, number"),
    ]
    return _svg(750, 240, "An update: the delta of local params and base version, and what it was made of", parts)


@dataclass(frozen=True, slots=True)
class Arrival:
    """An update that comes to the aggregator: of which site, when, trained from which version and since when."""

    site: int
    began: float
    at: float
    base: int
    staleness: int
    version: int | None
    """The version that is made with it, where it fills the buffer."""


def arrivals(until: float, buffer: int = 2) -> list[Arrival]:
    """Each site trains, sends, takes the newest version, trains; every `buffer` updates make a version."""
    began, base = [0.0] * len(SITES), [0] * len(SITES)
    version, folded, found = 0, 0, list[Arrival]()
    while True:
        at, site = min((began[number] + seconds, number) for number, (_, _, seconds) in enumerate(SITES))
        if at > until:
            return found
        folded += 1
        stale, made = version - base[site], folded % buffer == 0
        version += made
        found.append(Arrival(site, began[site], at, base[site], stale, version if made else None))
        began[site], base[site] = at, version


def time_line() -> str:
    """Three sites of unequal speed, a buffer of two updates: who trains when, and when versions are made."""
    until, left, scale = 12.0, 92, 53.0
    lanes = [52 + 46 * number for number in range(len(SITES))]
    floor = 226
    parts = [
        _text(20, lane + 19, name, f"{look} strong fill") for lane, (name, look, _) in zip(lanes, SITES, strict=True)
    ]
    parts += [
        _text(20, 28, "a bar: local steps; the number in it: the staleness of the update that comes of them", "quiet")
    ]
    parts += [
        _text(20, floor - 8, "versions", "strong"),
        f'<path class="line" d="M{left} {floor}H{left + until * scale}"/>',
    ]
    for each in arrivals(until):
        x, end, lane = left + each.began * scale, left + each.at * scale, lanes[each.site]
        look = SITES[each.site][1]
        parts.append(_rect(x + 1, lane, end - x - 2, 28, f"{look} fill"))
        parts.append(_text((x + end) / 2, lane + 19, str(each.staleness), "on strong", "middle"))
        shift = {0: 0.0, 1: 4.0, 2: -4.0}[each.site]
        parts.append(_arrow(end + shift, lane + 29, end + shift, floor - 6))
        if each.version is not None:
            parts.append(f'<circle class="d fill" cx="{end:g}" cy="{floor}" r="6"/>')
            parts.append(_text(end, floor + 24, str(each.version), "strong", "middle"))
    parts.append(_text(left + until * scale, floor + 44, "time; every second update makes a version", "quiet", "end"))
    return _svg(750, 286, "Three sites train at their own speed; every second update makes a version", parts)


def staleness() -> str:
    """The staleness weights of the four functions."""
    curves: list[tuple[str, str, Callable[[int], float]]] = [
        ("constant", "a", rules.constant),
        ("polynomial, a = 0.5", "b", lambda s: rules.polynomial(s, a=0.5)),
        ("hinge, a = 0.5, b = 4", "c", lambda s: rules.hinge(s, a=0.5, b=4)),
        ("exponential, a = 0.3", "d", lambda s: rules.exponential(s, a=0.3)),
    ]
    left, top, width, height, most = 60, 30, 420, 190, 12
    parts = [f'<path class="grid" d="M{left} {top + height * (1 - y):g}h{width}"/>' for y in (0, 0.25, 0.5, 0.75, 1)]
    parts += [_text(left - 8, top + height * (1 - y) + 5, f"{y:g}", "quiet", "end") for y in (0, 0.5, 1)]
    parts += [
        _text(left + width * s / most, top + height + 20, str(s), "quiet", "middle") for s in range(0, most + 1, 2)
    ]
    parts += [_text(left + width / 2, top + height + 42, "staleness, in versions", "quiet", "middle")]
    for number, (name, look, weight) in enumerate(curves):
        points = " ".join(f"{left + width * s / most:g},{top + height * (1 - weight(s)):.1f}" for s in range(most + 1))
        parts.append(f'<polyline class="{look} draw" points="{points}"/>')
        y = 60 + 34 * number
        parts += [f'<path class="{look} draw" d="M506 {y - 5}h28"/>', _text(544, y, name)]
    parts.append(_text(506, 208, "how much an update counts", "quiet"))
    return _svg(750, 282, "Staleness weight: 1 for a fresh update, less for a stale one", parts)


def influence() -> str:
    """Why a slow site is not outvoted: shares where each update counts, and where each last delta does."""
    speeds = [1 / seconds for _, _, seconds in SITES]
    rows = [
        ("every update counts the same: who is fast decides", [speed / sum(speeds) for speed in speeds]),
        ("calibrated: the last delta of each site stands in until its next one", [1 / len(SITES)] * len(SITES)),
    ]
    left, width, parts = 20, 710, list[str]()
    for number, (text, shares) in enumerate(rows):
        x, y = float(left), 34 + 84 * number
        parts.append(_text(left, y, text, "strong" if number else ""))
        for (name, look, _), share in zip(SITES, shares, strict=True):
            parts.append(_rect(x, y + 12, width * share - 2, 34, f"{look} fill"))
            label = f"{name} {share:.0%}".replace("%", " %")
            parts.append(_text(x + width * share / 2 - 1, y + 34, label, "on strong", "middle"))
            x += width * share
    parts.append(_text(left, 196, "three sites with as many examples each, as fast as those above", "quiet"))
    return _svg(750, 214, "A slow site counts as much as a fast one", parts)
