"""What a job's sites say of their data: kept in the ledger, compared, and who may take part in a training for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedbus.aggregator.job.checking import Gate, in_short
from fedbus.aggregator.job.survey import Survey
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.statistics import ClassLoss, Labels, Statistics
from fedbus.store.ledger import Ledger

GOOD = Statistics(examples=100, labels=Labels(counts={"0": 60, "1": 40}, expected=(0, 1)), prints=("0a" * 8,))
BAD = Statistics(examples=100, labels=Labels(counts={"1": 60, "2": 40}, expected=(0, 1)))


class Desk:
    """The tools of a job: a ledger of its own, and what was told and said."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.announcer = self
        self.told: list[tuple[str, m.StatisticsRequest]] = []
        self.happened: list[events.Happened] = []

    async def tell(self, site: str, message: m.StatisticsRequest) -> None:
        self.told.append((site, message))

    async def event(self, job: str, happened: events.Happened) -> None:
        self.happened.append(happened)

    async def store(self, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        return work(*args, **named)

    @property
    def tools(self) -> Any:
        return SimpleNamespace(ledger=self.ledger, announcer=self, store=self.store, compute=self.store)

    def suspects(self) -> list[tuple[str, str]]:
        return [(one.site, one.severity) for one in self.happened if isinstance(one, events.DataSuspect)]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        yield Desk(ledger)


async def opened(desk: Desk) -> Survey:
    survey = Survey("heart", tools=desk.tools)
    await survey.open()
    return survey


def answer(survey: Survey, site: str, statistics: Statistics | None, failed: str = "") -> m.StatisticsAnswer:
    asked = survey.request().id
    return m.StatisticsAnswer(site=site, job="heart", asked=asked, statistics=statistics, failed=failed)


async def test_plan_and_answers_are_there_after_a_restart(desk: Desk) -> None:
    survey = await opened(desk)
    assert await survey.take(answer(survey, "mercy", BAD))
    assert await survey.take(answer(survey, "va", None, failed="OSError"))
    await survey.take_losses("mercy", {"1": ClassLoss(examples=60, mean=0.5, variance=0.1)})
    again = await opened(desk)
    assert again.request() == survey.request()
    assert again.report() == survey.report()
    assert [one.kind for one in again.report().findings] == ["one-based-labels"]
    # and what was said is not said again
    desk.happened.clear()
    await again.tell(all_of_them=True)
    assert desk.happened == []


async def test_an_answer_to_another_question_does_not_count(desk: Desk) -> None:
    survey = await opened(desk)
    assert not await survey.take(replace(answer(survey, "mercy", GOOD), asked="another"))
    assert survey.report().sites == {}


async def test_prints_are_in_no_report(desk: Desk) -> None:
    survey = await opened(desk)
    await survey.take(answer(survey, "mercy", GOOD))
    assert survey.report().sites["mercy"].prints == ()


async def test_a_site_comes_in_when_its_data_are_in_order(desk: Desk) -> None:
    survey = await opened(desk)
    gate = Gate(survey, tools=desk.tools)
    # asked once, whatever often it comes
    assert [await gate.admission("mercy") for _ in range(2)] == [None, None]
    assert [site for site, _ in desk.told] == ["mercy"]
    assert gate.waits_for == "the data of mercy are being checked"
    # left out for a fault, which is said at once
    await gate.take(answer(survey, "mercy", BAD))
    assert "begin at 1" in str(await gate.admission("mercy"))
    assert desk.suspects() == [("mercy", "fault")]
    # and asked anew once it was started anew
    gate.site_started_anew("mercy")
    assert await gate.admission("mercy") is None
    await gate.take(answer(survey, "mercy", GOOD))
    assert await gate.admission("mercy") == ""
    # and not any more when its data are in order
    gate.site_started_anew("mercy")
    assert await gate.admission("mercy") == ""
    assert len(desk.told) == 2


async def test_who_cannot_be_checked_is_left_out_and_who_has_nothing_to_say_is_not(desk: Desk) -> None:
    survey = await opened(desk)
    gate = Gate(survey, tools=desk.tools)
    await gate.admission("mercy")
    await gate.take(answer(survey, "mercy", None, failed="OSError"))
    assert await gate.admission("mercy") == "its data could not be checked: OSError"
    await gate.take(answer(survey, "va", None))
    assert await gate.admission("va") == ""
    assert set(gate.report().cannot) == {"mercy", "va"}


async def test_a_check_comes_to_a_sentence(desk: Desk) -> None:
    survey = await opened(desk)
    for site, statistics in (("mercy", BAD), ("ucsf", GOOD), ("va", GOOD)):
        await survey.take(answer(survey, site, statistics))
    assert in_short(survey.report()).startswith("1 fault")
