"""How the screens look in 80 x 24. After a change on purpose: `pytest tests/top --snapshot-update`, and look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from fedbus.top.app import Top
from fedbus.top.opened import JobScreen, SiteScreen

from .asked import GivenFederation

Compare = Callable[..., bool]
SIZE = (80, 24)


def asked_for(app: Top) -> bool:
    """Whether what a screen asks for itself is there."""
    match app.screen:
        case JobScreen():
            return app.screen.watched.picture.waiting_for() == ["mercy"]
        case SiteScreen():
            return bool(app.screen.details)
    return True


def until(*keys: str) -> Callable[[Pilot[Any]], Awaitable[None]]:
    """Wait for the answers, press keys, and draw once more."""

    async def before(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        while app.overview.fresh.answered_at is None or app.screen.focused is None:
            await pilot.pause()
        for key in keys:
            await pilot.press(key)
        await pilot.pause()
        while not asked_for(app):
            await pilot.pause()
        draw = getattr(app.screen, "draw", None)
        if draw is not None:
            draw()
        await pilot.pause()

    return before


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param((), id="both-tables"),
        pytest.param(("enter",), id="a-job"),
        pytest.param(("tab", "down", "down", "enter"), id="a-site"),
        pytest.param(("slash", *"ucsf"), id="filtered"),
        pytest.param(("s", "s", "S"), id="sorted"),
        pytest.param(("a",), id="abort"),
        pytest.param(("question_mark",), id="help"),
    ],
)
def test_a_screen(make_top: Callable[[], Top], snap_compare: Compare, keys: tuple[str, ...]) -> None:
    assert snap_compare(make_top(), terminal_size=SIZE, run_before=until(*keys))


def test_with_nothing_yet(make_top: Callable[[], Top], federation: GivenFederation, snap_compare: Compare) -> None:
    federation.lines = federation.of_sites = ()
    assert snap_compare(make_top(), terminal_size=SIZE, run_before=until())


def test_while_the_aggregator_is_away(
    make_top: Callable[[], Top], federation: GivenFederation, clock: list[float], snap_compare: Compare
) -> None:
    async def away(pilot: Pilot[Any]) -> None:
        await until()(pilot)
        federation.answers, clock[0] = False, clock[0] + 70.0
        await until()(pilot)

    assert snap_compare(make_top(), terminal_size=SIZE, run_before=away)
