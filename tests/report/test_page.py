"""A page is one file that shows what it was given and runs nothing of it."""

from __future__ import annotations

import json
import math
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedbus.errors import SettingsError, StoreError
from fedbus.report import figures, page
from fedbus.report.files import FOR_THE_OWNER, write_report

EVIL = '<script>alert("1")</script>&\x1b[2J\u202e'


class Tags(HTMLParser):
    """Collects tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def a_page(*blocks: page.Block, title: str = "a title") -> page.Page:
    section = page.Section(title="part", blocks=blocks)
    return page.Page(title=title, lead="in one sentence", sections=[section], made_at=0.0, data={"n": 3})


def everywhere(text: str) -> page.Page:
    figure = figures.bars([figures.Bar(label=text, value=1.0, note=text)], says=text, caption=text)
    return a_page(
        page.Text(text=text),
        page.Facts(rows=[(text, text)]),
        page.Table(columns=[text], rows=[(text,)], caption=text),
        page.Findings(findings=[page.Finding(severity=page.Severity.NOTE, text=text, detail=text)]),
        figure,
        figures.intervals([figures.Interval(label=text, value=1.0, note=text)], says=text),
        figures.matrix([text], [text], {(0, 0): figures.Entry(value=1.0, note=text)}, says=text),
        figures.line([figures.Line(label=text, points=[(0, 1), (1, 2)])], says=text, x_name=text),
        page.Pictures(pictures=[page.Picture(png=page.PNG, width_px=1, height_px=1, says=text, caption=text)]),
        page.Code(title=text, text=text),
        title=text,
    )


def test_text_from_elsewhere_is_shown_and_never_markup() -> None:
    html = page.as_html(everywhere(EVIL))
    found = Tags(html)
    names = {tag for tag, _ in found.tags}
    assert "script" not in names
    assert found.text.count('<script>alert("1")</script>') >= 14
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]


def test_a_page_asks_for_nothing_from_elsewhere() -> None:
    found = Tags(page.as_html(everywhere("plain")))
    targets = [attributes[name] or "" for _, attributes in found.tags for name in ("src", "href") if name in attributes]
    assert all(target.startswith("data:image/png;base64,") for target in targets)
    assert "default-src 'none'" in str(found.tags)


def test_a_severity_has_a_word_and_a_shape_and_the_worst_comes_first() -> None:
    findings = [page.Finding(severity=severity, text="x") for severity in reversed(page.Severity)]
    html = page.as_html(a_page(page.Findings(findings=findings)))
    words = [f"<strong>{severity}</strong>" for severity in page.Severity]
    assert sorted(map(html.index, words)) == [html.index(word) for word in words]
    assert all(f".{severity} .mark::before" in html for severity in page.Severity)


def test_long_tables_and_texts_are_cut_and_the_rest_is_counted() -> None:
    table = page.Table(columns=["n"], rows=[(number,) for number in range(page.MOST_ROWS + 7)])
    html = page.as_html(a_page(table, page.Text(text="x" * 10_000)))
    assert "and 7 more rows" in html
    assert "8000 more characters" in html


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_said_in_figures_and_null_in_json(value: float) -> None:
    shown = [
        figures.bars([figures.Bar(label="a", value=value)], says=""),
        figures.intervals([figures.Interval(label="a", value=value, low=value, high=value)], says=""),
        figures.matrix(["a"], ["b"], {(0, 0): figures.Entry(value=value)}, says=""),
        figures.line([figures.Line(label="a", points=[(0.0, value), (1.0, 1.0)])], says=""),
    ]
    assert all("nan" not in figure.svg and '"inf' not in figure.svg for figure in shown)
    assert all("not finite" in figure.svg for figure in shown[:3])
    assert json.loads(page.as_json(page.Page(title="", lead="", sections=[], made_at=0.0, data={"x": [value]})))[
        "x"
    ] == [None]


@pytest.mark.parametrize(
    "values", [(-1.7e308, 1.7e308), (0.0, 5e-324), (1.7e308, 1.7e308), (1.0, math.nextafter(1, 2))]
)
def test_numbers_of_any_size_are_drawn(values: tuple[float, float]) -> None:
    first, second = values
    entries = {(0, at): figures.Entry(value=value) for at, value in enumerate(values)}
    shown = [
        figures.bars([figures.Bar(label="a", value=value) for value in values], says=""),
        figures.intervals([figures.Interval(label="a", value=first, low=first, high=second)], says="", reference=0.0),
        figures.matrix(["a"], ["b", "c"], entries, says=""),
        figures.line([figures.Line(label="a", points=list(enumerate(values)))], says=""),
    ]
    assert all("nan" not in figure.svg and not re.search(r"\binf\b", figure.svg) for figure in shown)


def test_empty_figures_and_single_values_are_drawn_too() -> None:
    assert "svg" in figures.bars([], says="").svg
    assert "svg" in figures.intervals([], says="").svg
    assert "svg" in figures.matrix([], [], {}, says="").svg
    assert "svg" in figures.line([], says="").svg
    assert "0.500" in figures.bars([figures.Bar(label="a", value=0.5)], says="").svg


def test_rows_beyond_the_bound_are_counted() -> None:
    rows = [figures.Bar(label=f"site {number}", value=1.0) for number in range(figures.MOST_ROWS + 5)]
    figure = figures.bars(rows, says="", caption="bars")
    assert figure.caption == "bars; and 5 more rows"
    assert f"site {figures.MOST_ROWS}" not in figure.svg


def test_a_long_line_keeps_its_ends_and_is_thinned() -> None:
    points = [(float(at), float(at % 7)) for at in range(10_000)]
    svg = figures.line([figures.Line(label="a", points=points)], says="").svg
    assert svg.count(",") < 2 * figures.MOST_POINTS
    assert ">9999<" in svg


def test_a_report_is_written_whole_and_not_over_another_file(tmp_path: Path) -> None:
    to = tmp_path / "report.html"
    write_report(a_page(), to, mode=FOR_THE_OWNER)
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    with pytest.raises(SettingsError, match="--force"):
        write_report(a_page(title="newer"), to)
    write_report(a_page(title="newer"), to, force=True)
    assert "newer" in to.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_ending_says_what_is_written(tmp_path: Path) -> None:
    write_report(a_page(), tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["n"] == 3
    with pytest.raises(SettingsError, match=r"\.html or \.json"):
        write_report(a_page(), tmp_path / "r.pdf")
    with pytest.raises(StoreError, match="no folder"):
        write_report(a_page(), tmp_path / "none" / "r.html")


def test_a_picture_is_a_png() -> None:
    with pytest.raises(ValueError, match="PNG"):
        page.Picture(png=b"GIF89a", width_px=1, height_px=1, says="")
