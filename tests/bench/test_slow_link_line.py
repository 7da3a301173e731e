"""The model of a slow line: rate, delay, queue and loss, in the time of the test."""

from __future__ import annotations

import random

import pytest

from fedbus.bench.slow_link.line import FULL_PACKET_BYTES, QUEUE_PACKETS, Line, LineSpec

CLEAN = LineSpec(mbit=8, rtt_s=0.2, loss=0)  # 1,000,000 bytes a second


def line(spec: LineSpec = CLEAN, seed: int = 0) -> Line:
    return Line(spec, random.Random(seed))


def test_a_packet_takes_its_time_on_the_line_and_half_the_round_trip() -> None:
    assert line().arrives(1000, now=5.0) == pytest.approx(5.0 + 0.001 + 0.1)


def test_packets_wait_for_those_before_them() -> None:
    busy = line()
    assert [busy.arrives(1000, now=0.0) for _ in range(3)] == pytest.approx([0.101, 0.102, 0.103])
    assert busy.passed_bytes == 3000


def test_a_line_that_was_idle_sends_at_once() -> None:
    idle = line()
    idle.arrives(1000, now=0.0)
    assert idle.arrives(1000, now=60.0) == pytest.approx(60.101)


def test_what_finds_the_queue_full_is_lost() -> None:
    # given more than a queue of full packets that arrive at once
    flooded = line()
    out = [flooded.arrives(FULL_PACKET_BYTES, now=0.0) for _ in range(2 * QUEUE_PACKETS)]
    # then a queue of them passes, and perhaps the one that is being sent
    passed = sum(at is not None for at in out)
    assert QUEUE_PACKETS <= passed <= QUEUE_PACKETS + 1
    assert flooded.lost_packets == 2 * QUEUE_PACKETS - passed


def test_as_many_are_lost_as_the_line_loses_and_always_the_same_ones() -> None:
    lossy = LineSpec(mbit=8, rtt_s=0.2, loss=0.02)
    first, second = line(lossy, 1), line(lossy, 1)
    fates = [first.arrives(100, now=float(n)) for n in range(10_000)]
    assert 150 <= first.lost_packets <= 250
    assert fates == [second.arrives(100, now=float(n)) for n in range(10_000)]


def test_ideal_is_the_rate_and_one_round_trip() -> None:
    assert CLEAN.ideal_s(1_000_000) == pytest.approx(1.2)


@pytest.mark.parametrize("wrong", [{"mbit": 0}, {"rtt_s": -1}, {"loss": 1.0}])
def test_a_line_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a line has"):
        LineSpec(**{"mbit": 8, "rtt_s": 0.2, "loss": 0.0, **wrong})
