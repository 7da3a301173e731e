"""What the keys of the table do, over given answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Static

from fedbus.core.protocol.answers import JobLine
from fedbus.errors import LoginError
from fedbus.top.app import Top
from fedbus.top.main import MainScreen, Rows
from fedbus.top.opened import JobScreen, SiteScreen
from fedbus.top.questions import Help, Question
from fedbus.top.rows import Order, job_rows

from .asked import JOB, GivenFederation, jobs

Make = Callable[[], Top]


async def settled(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    while not condition():
        await pilot.pause(0.01)


async def answered(pilot: Pilot[Any], app: Top) -> Rows:
    """Wait for the first answers, draw them, and return the table of jobs."""
    await settled(pilot, lambda: app.overview.fresh.answered_at is not None)
    main = app.screen
    assert isinstance(main, MainScreen)
    main.draw()
    return main.query_one("#jobs", Rows)


async def test_enter_opens_a_job_or_a_site_and_escape_leads_back(make_top: Make) -> None:
    app = make_top()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app)
        await pilot.press("enter")
        assert isinstance(app.screen, JobScreen)
        await pilot.press("escape", "tab", "enter")
        assert isinstance(app.screen, SiteScreen)
        await pilot.press("escape", "question_mark")
        assert isinstance(app.screen, Help)
        await pilot.press("escape", "q")
    assert app.return_value == 0


async def test_a_job_is_aborted_after_yes_and_after_nothing_else(make_top: Make, federation: GivenFederation) -> None:
    app = make_top()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app)
        for no in ("n", "escape", "enter"):
            await pilot.press("a")
            assert isinstance(app.screen, Question)
            await pilot.press(no)
        assert federation.aborted == []
        await pilot.press("a", "y")
        await settled(pilot, lambda: federation.aborted == [JOB])
        # one that has ended is not asked about, nor is a site
        await pilot.press("down", "a")
        assert isinstance(app.screen, MainScreen)
        await pilot.press("tab", "a")
        assert isinstance(app.screen, MainScreen)
        # and what cannot be done is said
        federation.answers = False
        await pilot.press("tab", "up", "a", "y")
        await settled(pilot, lambda: any("nobody took" in note.message for note in app._notifications))
        await pilot.press("ctrl+c")
    assert federation.aborted == [JOB]
    assert app.return_value == 130


async def test_the_chosen_line_stays_chosen_when_jobs_come_and_go(make_top: Make, federation: GivenFederation) -> None:
    app = make_top()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await answered(pilot, app)
        await pilot.press("down")
        assert table.chosen is not None
        chosen = table.chosen.key
        newest = JobLine(job="new-11223344", state="waiting for sites", submitted_at=9.0)
        federation.lines = [*jobs(), newest]
        await settled(pilot, lambda: len(app.overview.jobs) == 4)
        assert isinstance(app.screen, MainScreen)
        app.screen.draw()
        assert table.rows_shown[0].key == newest.job
        assert table.chosen.key == chosen


async def test_a_filter_holds_for_both_tables_until_escape(make_top: Make) -> None:
    app = make_top()
    async with app.run_test(size=(80, 24)) as pilot:
        table = await answered(pilot, app)
        await pilot.press("slash", *"ucsf", "enter")
        assert [row.key for row in table.rows_shown] == [JOB]
        await pilot.press("s", "escape")
        assert len(table.rows_shown) == 3
        await pilot.press("slash", *"no such word")
        assert table.rows_shown == []
        assert "none of 3 jobs" in str(app.screen.query_one("#no-jobs", Static).content)


async def test_answers_that_stop_are_said_and_come_back_by_themselves(
    make_top: Make, federation: GivenFederation, clock: list[float]
) -> None:
    app = make_top()
    async with app.run_test(size=(80, 24)) as pilot:
        await answered(pilot, app)
        federation.connected, clock[0] = False, clock[0] + 30.0
        await settled(pilot, lambda: "no link to the broker" in app.trouble())
        assert len(app.overview.jobs) == 3
        federation.connected = True
        await settled(pilot, lambda: app.trouble() == "")


async def test_a_login_that_is_refused_ends_it_with_the_reason(make_top: Make, federation: GivenFederation) -> None:
    class Refused(GivenFederation):
        async def __aenter__(self) -> Any:
            raise LoginError("wrong user or password")

    app = Top(Refused)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, lambda: app.error is not None)
    assert app.return_value == 1


def test_jobs_are_sorted_by_what_stands_in_a_column_not_by_how_it_is_written() -> None:
    def order(**settings: Any) -> list[str]:
        return [row.key.partition("-")[0] for row in job_rows(jobs(), word="", order=Order(**settings))]

    assert order() == ["heart", "digits", "kidneys"]
    assert order(column=1) == ["heart", "digits", "kidneys"]
    assert order(column=3) == ["kidneys", "heart", "digits"]
    assert order(column=3, reverse=True) == ["digits", "heart", "kidneys"]
