"""What somebody who watches a job sees, from given events and answers; nothing runs."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import RenderableType

from fedbus.console.look import blocks
from fedbus.console.panel import job_panel
from fedbus.console.picture import Picture
from fedbus.console.watched import Freshness, Watched
from fedbus.core.protocol import events as e
from fedbus.core.protocol.answers import Doing, JobDetail, SiteInJob, SiteLine
from fedbus.errors import DecodeError, NoAnswerError
from fedbus.runtime.terminal import Terminal

SIZES = [(80, 24), (120, 50), (50, 18), (30, 10), (12, 4)]


def rendered(renderable: RenderableType, *, width: int, encoding: str = "utf-8") -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    Terminal(file=file, width=width, color_system=None).print(renderable)
    file.seek(0)
    return file.read().splitlines()


def watched_job(*, sites: int = 3, stop: object = None) -> Watched:
    """A job of two versions; of many sites the last one is lost."""
    watched = Watched(job="heart-0123abcd", picture=Picture(job="heart-0123abcd"))
    names = [f"site-{number:03}" for number in range(sites)]
    happened: list[e.Happened] = [e.JobSubmitted(login="ana", task="digits"), e.JobRunning(sites=tuple(names))]
    happened += [e.SiteAccepted(site=name) for name in names]
    for version, loss in ((1, 0.9), (2, 0.5)):
        update = e.UpdateFolded(site=names[0], update=f"{names[0]}:0123abcd:{version}", metrics={"loss": loss})
        happened += [update, e.VersionCommitted(version=version, updates=(update.update,))]
        happened.append(e.VersionScored(site=names[0], version=version, metrics={"auc": 1 - loss}, means={"auc": 0.5}))
    happened.append(e.SiteLost(site=names[-1], reason="silent"))
    for second, one in enumerate(happened):
        watched.take(e.wire_of(one, job=watched.job, at=float(second)))
    detail = JobDetail(
        job=watched.job,
        task="digits",
        state="running",
        version=2,
        updates=2,
        says="waiting for 1 more update (1 of 2 in the buffer); " + "training: va, " * 30,
        spec={"stop": {"versions": 10} if stop is None else stop},
        sites={names[0]: SiteInJob(updates=2, state="online", activity="training")},
    )
    doing = Doing(activity="training", version=2, step=3, steps=40)
    lines = [SiteLine(site=names[0], state="online", jobs={watched.job: doing})]
    lines.append(SiteLine(site=names[-1], state="lost", since_s=840.0))
    watched.look(detail, lines, now=0.0)
    return watched


def shown(watched: Watched, *, width: int = 80, height: int = 24, clock: float = 0.0) -> list[str]:
    return rendered(job_panel(watched, width=width, height=height, now=60.0, clock=clock), width=width)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sites", [2, 200])
def test_the_panel_fits_whatever_there_is_to_show(size: tuple[int, int], sites: int) -> None:
    width, height = size
    lines = shown(watched_job(sites=sites), width=width, height=height)
    assert max(map(len, lines)) <= width
    if height >= 10:
        assert len(lines) <= height


def test_the_panel_says_how_far_why_it_waits_who_does_what_and_what_is_learnt() -> None:
    text = "\n".join(shown(watched_job()))
    assert "version 2 of 10, 2 updates, 59 s" in text
    assert "waiting for 1 more update" in text
    assert "training 3/40, version 2" in text
    assert "lost      offline 14 min" in text
    assert "loss of training  █▁  0.5, from 0.5 to 0.9" in text
    assert "auc  ▅▅  0.5" in text
    assert "site-002 is lost: silent" in text


def test_of_two_hundred_sites_those_with_trouble_come_first_and_the_rest_are_counted() -> None:
    lines = shown(watched_job(sites=200))
    first = next(i for i, line in enumerate(lines) if line.startswith("│ site ")) + 1
    assert "site-199" in lines[first]
    assert any("more sites" in line and "here" in line for line in lines)


def test_a_job_that_stops_at_updates_or_at_nothing_that_can_be_counted_says_what_is_known() -> None:
    assert "2 of 5 updates" in "\n".join(shown(watched_job(stop={"updates": 5})))
    for strange in ([], {"versions": "many"}, {"target": 3}, "never"):
        assert "version 2, 2 updates" in "\n".join(shown(watched_job(stop=strange)))


def test_a_metric_that_the_job_stops_at_is_the_one_that_is_shown() -> None:
    assert watched_job(stop={"versions": 3, "patience": {"versions": 2, "metric": "dice"}}).metric == "dice"
    assert watched_job(stop={"target": {"metric": "auc", "at_least": 0.9}}).metric == "auc"


def test_what_does_not_answer_is_said_with_the_age_of_what_is_shown() -> None:
    watched = watched_job()
    watched.fresh.failed(NoAnswerError("nobody took or answered query within 15 s"))
    assert not any("does not answer" in line for line in shown(watched, clock=2.0))
    away = "the aggregator does not answer: shown is how it was 14 s ago, asking again"
    assert any(away in line for line in shown(watched, clock=14.0))
    watched.fresh.connected = False
    assert any("no link to the broker" in line for line in shown(watched, clock=14.0))
    watched.fresh.failed(DecodeError("an answer of another release"))
    assert any("another release" in line for line in shown(watched, clock=0.5))
    assert Freshness().trouble(5.0) == "the aggregator does not answer; asking again"


def test_what_a_site_says_moves_no_cursor() -> None:
    watched = watched_job()
    assert watched.detail is not None
    evil = SiteLine(site="site-000", jobs={watched.job: Doing(activity="\x1b[2Jx\ny", version=-1)})
    watched.look(watched.detail, [evil], now=0.0)
    text = "\n".join(shown(watched))
    assert "\x1b" not in text
    assert r"\x1b[2Jx\ny" in text


def test_a_terminal_that_knows_no_blocks_gets_plain_characters() -> None:
    panel = job_panel(watched_job(), width=80, height=24, now=60.0, clock=0.0)
    assert any("loss of training  #_" in line for line in rendered(panel, width=80, encoding="latin-1"))


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 5, ""),
        ([1.0], 5, "▅"),
        ([0.0, 1.0], 5, "▁█"),
        ([2.0, 2.0, 2.0], 5, "▅▅▅"),
        ([0.0, math.nan, math.inf, 7.0], 5, "▁█"),
        ([float(n) for n in range(100)], 4, "▁▃▆█"),
    ],
    ids=str,
)
def test_a_curve_is_drawn_from_its_lowest_to_its_highest_block(values: list[float], width: int, drawn: str) -> None:
    assert blocks(values, width) == drawn
