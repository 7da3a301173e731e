"""Errors of aio_pika that nobody can provoke at will on a real broker."""

from __future__ import annotations

import pytest

from fedbus.bus.translate import translated
from fedbus.errors import ConnectionLostError


def test_a_call_that_ends_with_a_bare_exception_lost_its_channel() -> None:
    # aiormq ends with it what waits for something that is closed without a reason: seen on an ack of a daemon that woke
    # up after its link had gone
    with pytest.raises(ConnectionLostError, match="ack: the channel was closed meanwhile"), translated("ack"):
        raise Exception


def test_a_bug_stays_what_it_is() -> None:
    with pytest.raises(ValueError, match="ours"), translated("ack"):
        raise ValueError("ours")
