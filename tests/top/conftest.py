"""A table over given answers, on clocks that stand still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from fedbus.top.app import Top

from .asked import NOON, GivenFederation


@pytest.fixture
def federation() -> GivenFederation:
    return GivenFederation()


@pytest.fixture
def clock() -> list[float]:
    """What the clock shows; a test may set it."""
    return [100.0]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are those of Greenwich, and colours are not switched off."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def make_top(federation: GivenFederation, clock: list[float], utc: None) -> Callable[[], Top]:
    return lambda: Top(lambda: federation, every_s=0.05, clock=lambda: clock[0], now=lambda: NOON + 60.0)
