"""Allowances: a steady rate with room for a burst, counted and told now and then; snapshots on request are rare."""

from __future__ import annotations

from fedbus.aggregator.incoming.allowance import TELL_AGAIN_S, Allowance
from fedbus.aggregator.incoming.put_off import PutOff
from fedbus.aggregator.job.resyncs import BURST, PAUSE_S, REFILL_S, Resyncs


def test_a_login_has_a_burst_and_then_a_rate_and_others_have_their_own() -> None:
    allowance = Allowance(rate=2.0, burst=5.0)
    assert [allowance.take("evil", now=0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert allowance.take("mercy", now=0.0)
    assert [allowance.take("evil", now=1.0) for _ in range(3)] == [True, True, False]


def test_what_costs_more_than_ever_fits_costs_a_full_bucket() -> None:
    allowance = Allowance(rate=1.0, burst=5.0)
    assert allowance.take("mercy", 100.0, now=0.0)
    assert not allowance.take("mercy", 100.0, now=4.0)
    assert allowance.take("mercy", 100.0, now=5.0)


def test_who_is_beyond_is_told_once_and_then_now_and_then_with_the_number() -> None:
    allowance = Allowance(rate=0.0, burst=1.0)
    for _ in range(4):
        allowance.take("evil", now=0.0)
    assert allowance.to_tell(now=0.0) == {"evil": 3}
    allowance.take("evil", now=1.0)
    assert allowance.to_tell(now=1.0) == {}
    assert allowance.to_tell(now=TELL_AGAIN_S) == {"evil": 1}
    assert allowance.to_tell(now=10 * TELL_AGAIN_S) == {}


def test_of_what_is_put_off_the_newest_of_a_kind_stays_in_its_turn() -> None:
    off: PutOff[int] = PutOff()
    for key, what in (("a", 1), ("b", 2), ("a", 3)):
        off.put("mercy", key, what)
    assert (off.get("mercy", "a"), off.get("ucsf", "a")) == (3, None)
    assert list(off.oldest()) == [("mercy", "b", 2)]
    off.drop("mercy", "b")
    assert list(off.oldest()) == [("mercy", "a", 3)]
    off.drop("mercy", "a")
    assert list(off.oldest()) == []


def test_however_many_ask_one_snapshot_is_made() -> None:
    resyncs = Resyncs()
    asked = [resyncs.ask(f"site-{n}", now=0.0) for n in range(100)]
    assert asked == [True] + [False] * 99
    assert resyncs.due(now=0.0)
    assert not resyncs.due(now=0.0)


def test_snapshots_are_seconds_apart() -> None:
    resyncs = Resyncs()
    for second in range(20):
        resyncs.ask(f"site-{second}", now=float(second))
    assert resyncs.due(now=20.0)
    resyncs.ask("mercy", now=20.5)
    assert not resyncs.due(now=20.0 + PAUSE_S - 0.1)
    assert resyncs.due(now=20.0 + PAUSE_S)


def test_one_site_that_keeps_asking_gets_a_few_and_then_one_a_minute() -> None:
    resyncs, made = Resyncs(), 0
    for tenth in range(int(10 * 10 * REFILL_S)):
        resyncs.ask("evil", now=tenth / 10)
        made += resyncs.due(now=tenth / 10)
    assert made <= BURST + 10
    assert resyncs.ask("mercy", now=10 * REFILL_S) or resyncs.due(now=10 * REFILL_S)
    assert "evil" in resyncs.to_tell(now=10 * REFILL_S)


def test_a_site_that_reads_a_long_backlog_may_ask_with_each_version() -> None:
    resyncs = Resyncs()
    for _ in range(1000):
        resyncs.ask("mercy", now=0.0)
    assert resyncs.due(now=0.0)
    assert resyncs.to_tell(now=0.0) == {}
