"""What a browser is sent: all of a job at first, then what has changed, however much happened in between."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from fedbus.bench.long_job import JOB, long_job
from fedbus.console.curve import Curve
from fedbus.console.picture import Picture
from fedbus.core.protocol import answers as a
from fedbus.core.protocol import events as e
from fedbus.web.job_view import MOST_DRAWN, View, picture_of, sites_drawn, view_of
from fedbus.web.live import MOST_LINES, Sent

DETAIL = a.JobDetail(job=JOB, state="running", says="buffer 2 of 4", buffer=a.BufferFill(have=2, size=4))


def view(picture: Picture, *, detail: a.JobDetail = DETAIL, whose: str = "events 1", drawn: int = 2) -> View:
    chosen = sorted(picture.sites)[:drawn]
    return view_of(detail, (), picture, drawn=chosen, now=0.0, whose=whose)


class Browser:
    """What a browser makes of patches; as job.js does."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.rows: dict[str, Any] = {}
        self.curves: dict[str, dict[str, list[Any]]] = {}
        self.lines: list[str] = []

    def take(self, patch: dict[str, Any]) -> None:
        patch = json.loads(json.dumps(patch, allow_nan=False))
        self.words |= patch.get("words", {})
        self.rows |= patch.get("rows", {})
        self.lines += [line["text"] for line in patch.get("log", ())]
        for name, part in patch.get("curves", {}).items():
            curve = self.curves.setdefault(name, {"versions": [], "at": []})
            for column in {*curve, *part["columns"]}:
                new = part.get(column) if column in ("versions", "at") else part["columns"].get(column)
                old = curve.setdefault(column, [None] * part["start"])
                curve[column] = old[: part["start"]] + (new or [None] * len(part["versions"]))


def drawn_of(curve: Curve) -> dict[str, list[Any]]:
    shown = {name: [float(f"{value:.6g}") for value in column] for name, column in curve.columns.items()}
    return {"versions": curve.versions.tolist(), "at": [round(at, 1) for at in curve.at], **shown}


def test_whatever_a_browser_has_missed_it_ends_with_the_curves_that_are_there() -> None:
    picture, events = Picture(), long_job(events=8_000, sites=3)
    often, seldom, often_sent, seldom_sent = Browser(), Browser(), Sent(), Sent()
    for number in range(80):
        for event in islice(events, 100):
            picture.take(event)
        often.take(often_sent.patch(view(picture)))
        if number % 20 == 19:
            seldom.take(seldom_sent.patch(view(picture)))
    for browser in (often, seldom):
        assert browser.curves["means"] == drawn_of(picture.means)
        assert browser.curves["versions"] == drawn_of(picture.versions)
        assert browser.curves["training:site-000"] == drawn_of(picture.training["site-000"])
        assert "training:site-002" not in browser.curves
        assert (browser.words["version"], len(browser.rows)) == (f"{picture.version:,}", 3)
    assert len(often.lines) == picture.changes
    assert len(seldom.lines) == 4 * MOST_LINES
    assert often_sent.patch(view(picture)) == {}


def test_a_patch_has_what_changed_and_a_picture_that_began_anew_comes_whole() -> None:
    picture, sent = Picture(), Sent()
    for event in islice(long_job(events=200, sites=2), 200):
        picture.take(event)
    first = sent.patch(view(picture))
    assert (first["buffer"], first["words"]["waiting"]) == ((2, 4), "Buffer 2 of 4.")
    refused = e.UpdateRefused(site="site-000", update="site-000:0123abcd:1", reason="too old")
    picture.take(e.wire_of(refused, job=JOB, at=1.0))
    second = sent.patch(view(picture))
    assert (sorted(second), [line["kind"] for line in second["log"]]) == (
        ["events", "log", "words"],
        ["update-refused"],
    )
    assert sent.patch(view(picture, whose="events 2"))["curves"]["means"]["start"] == 0
    assert sent.patch(view(picture, whose="events 2", drawn=1)) == {}
    another = sent.patch(view(picture, whose="events 2"))
    assert sorted(another["curves"]) == ["training:site-001"]


def test_a_job_whose_events_are_gone_has_the_curves_of_its_history_and_its_incidents() -> None:
    detail = a.JobDetail(
        job=JOB, state="finished", ended_at=9.0, incidents=(a.Incident(at=1.0, kind="site-lost", text="va is lost"),)
    )
    scores = [{"auc": version / 9} for version in range(9)]
    lines = [a.VersionLine(version=v, at=v, means=score, scores={"va": score}) for v, score in enumerate(scores)]
    found = view(picture_of(detail, lines), detail=detail, whose="history 9")
    browser = Browser()
    browser.take(Sent().patch(found))
    assert browser.curves["means"]["versions"] == list(range(9))
    assert browser.lines == ["va is lost"]
    assert browser.words["up"] == "not known"


def test_the_sites_that_are_drawn_are_those_that_are_wanted_and_there_and_few() -> None:
    names = [f"site-{number:03}" for number in range(200)]
    assert sites_drawn(names, ["site-100", "nobody", "site-100"]) == ["site-100"]
    assert sites_drawn(names, []) == names[:8]
    assert len(sites_drawn(names, names)) == MOST_DRAWN
