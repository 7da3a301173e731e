"""Signals to this very process, as they reach a demo."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from fedbus.local.interrupts import Interrupted, Interrupts


@pytest.fixture(autouse=True)
def hangups_count() -> Iterator[None]:
    """As in a terminal: a run under nohup ignores them from the start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_plain_code_raises(number, exit_code):
    with pytest.raises(Interrupted) as caught, Interrupts():
        send(number)
    assert caught.value.exit_code == exit_code


def test_a_signal_cancels_coroutines_and_then_raises():
    cleaned_up = []

    async def main() -> None:
        try:
            send(signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    with pytest.raises(Interrupted, match="SIGTERM"), Interrupts() as interrupts:
        interrupts.run(main())
    assert cleaned_up


def test_a_second_signal_does_not_cut_cleaning_up_short():
    cleaned_up = []

    def interrupted_twice() -> None:
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT)
            cleaned_up.append(True)

    with pytest.raises(Interrupted, match="SIGINT"), Interrupts():
        interrupted_twice()
    assert cleaned_up


def test_after_shut_signals_are_ignored():
    with Interrupts() as interrupts:
        interrupts.shut()
        send(signal.SIGTERM)


def test_what_coroutines_return_comes_back():
    async def main() -> int:
        return 7

    with Interrupts() as interrupts:
        assert interrupts.run(main()) == 7


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
