"""Whose turn it is at a site that trains other jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbus.site import places
from fedbus.site.places import Places, Waiting, default_places, device_meant, devices_of, more_places, most_devices


def ask(at: Places, job: str, *, submitter: str = "ana", priority: int = 0, yielded: bool = False) -> Waiting:
    return at.ask(job, priority=priority, submitter=submitter, yielded=yielded)


def served_in_order(at: Places, first: Waiting, waiting: list[Waiting]) -> list[str]:
    """Give the one place from hand to hand; the jobs in the order in which they get it."""
    order, holds = [], first
    while waiting:
        at.leave(holds)
        (holds,) = [one for one in waiting if one.turn.done()]
        waiting.remove(holds)
        order.append(holds.job)
    return order


async def test_no_more_have_a_place_than_there_are() -> None:
    at = Places(2)
    first, second, third = (ask(at, job) for job in ("one", "two", "three"))
    assert [first.turn.result(), second.turn.result()] == [0, 1]
    assert not third.turn.done()
    assert at.before("three") == 0
    at.leave(second)
    assert third.turn.result() == 1


async def test_those_who_wait_come_by_priority_then_by_who_was_served_longest_ago_then_as_they_came() -> None:
    at = Places(1)
    first = ask(at, "a1", submitter="ana")
    waiting = [
        ask(at, "a2", submitter="ana"),
        ask(at, "a3", submitter="ana"),
        ask(at, "b1", submitter="bo"),
        ask(at, "b2", submitter="bo"),
        ask(at, "urgent", submitter="ana", priority=5),
        ask(at, "later", submitter="cy", priority=-1),
    ]
    assert at.before("urgent") == 0
    assert at.before("later") == 5
    assert served_in_order(at, first, waiting) == ["urgent", "b1", "a2", "b2", "a3", "later"]


async def test_a_job_that_gave_its_place_back_comes_after_all_others() -> None:
    at = Places(1)
    first = ask(at, "one", priority=9)
    second = ask(at, "two")
    third = ask(at, "one", priority=9, yielded=True)
    assert served_in_order(at, first, [second, third]) == ["two", "one"]


async def test_whoever_does_not_wait_any_more_takes_no_place() -> None:
    at = Places(1)
    first, second, third = (ask(at, job) for job in ("one", "two", "three"))
    second.turn.cancel()
    at.leave(second)
    at.leave(first)
    assert third.turn.result() == 0
    at.leave(third)
    assert not at.wanted
    assert ask(at, "four").turn.result() == 0


async def test_a_job_has_the_places_that_nobody_needs_and_gives_back_what_is_beyond_its_share() -> None:
    at = Places(4)
    first = ask(at, "one")
    at.take_more(first, 9)
    assert (first.turn.result(), first.more) == (0, (1, 2, 3))
    assert not at.too_many(first)

    second = ask(at, "two")
    assert at.too_many(first)
    at.give_back(first)
    assert first.more == (1,)
    assert second.turn.result() == 2
    at.take_more(second, 9)
    assert second.more == (3,)

    third = ask(at, "three")
    assert at.too_many(first)
    assert at.too_many(second)
    at.give_back(first)
    assert first.more == ()
    assert third.turn.result() == 1
    assert not at.too_many(second)

    for one in (first, second, third):
        at.leave(one)
    last = ask(at, "four")
    at.take_more(last, 1)
    assert len({last.turn.result(), *last.more}) == 2


async def test_nobody_takes_more_places_while_somebody_waits() -> None:
    at = Places(2)
    first, second = ask(at, "one"), ask(at, "two")
    third = ask(at, "three")
    at.leave(first)
    at.take_more(second, 1)
    assert third.turn.result() == 0
    assert second.more == ()


def have_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, *, there: int, visible: str | None = None) -> None:
    for number in range(there):
        (folder / f"0000:0{number}:00.0").mkdir()
    monkeypatch.setattr(places, "GPUS", folder)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


@pytest.mark.parametrize(
    ("there", "device", "ranks", "batch_size", "held", "most_places", "on"),
    [
        (4, "auto", None, 32, [0, 1, 2, 3], 4, "0 1 2 3"),
        (4, "auto", None, 32, [2, 0], 4, "2 0"),
        (4, "auto", None, 2, [0, 1, 2, 3], 4, "0 1"),
        (4, "auto", 3, 32, [0, 1, 2, 3], 4, "0 1 2"),
        (4, "auto", None, 32, [0], 1, "0 1 2 3"),
        (4, "cuda", None, 32, [1], 2, "1 3"),
        (2, "auto", None, 32, [5], 8, "1"),
    ],
)
def test_the_gpus_are_dealt_out_to_the_places(
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: int,
    device: str,
    ranks: int | None,
    batch_size: int,
    held: list[int],
    most_places: int,
    on: str,
) -> None:
    have_gpus(tmp_path, monkeypatch, there=there)
    most = most_devices(device, ranks=ranks, batch_size=batch_size)
    assert more_places(device, most) == most - 1
    assert devices_of(device, held, most_places, most=most) == tuple(f"cuda:{number}" for number in on.split())


@pytest.mark.parametrize(
    ("there", "device", "ranks", "on"),
    [
        (0, "auto", None, 1),
        (0, "auto", 2, 2),
        (0, "cpu", 3, 3),
        (1, "auto", 2, 1),
        (4, "cuda:3", 2, 1),
        (4, "cpu", 2, 2),
    ],
)
def test_without_several_gpus_there_is_one_rank_or_as_many_as_are_asked_for_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, there: int, device: str, ranks: int | None, on: int
) -> None:
    have_gpus(tmp_path, monkeypatch, there=there)
    most = most_devices(device, ranks=ranks, batch_size=32)
    assert more_places(device, most) == 0
    assert devices_of(device, [0], 1, most=most) == (device,) * on


@pytest.mark.parametrize(
    ("there", "visible", "device", "most", "on", "meant"),
    [
        (0, None, "auto", 1, "auto", "cpu"),
        (1, None, "auto", 1, "auto", "cuda"),
        (4, None, "auto", 4, "cuda:1", "cuda"),
        (4, "0,2", "cuda", 2, "cuda:1", "cuda"),
        (4, "", "auto", 1, "auto", "cpu"),
        (4, None, "cuda:3", 1, "cuda:3", "cuda:3"),
        (4, None, "cpu", 1, "cpu", "cpu"),
    ],
)
def test_a_place_for_each_gpu(
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: int,
    visible: str | None,
    device: str,
    most: int,
    on: str,
    meant: str,
) -> None:
    have_gpus(tmp_path, monkeypatch, there=there, visible=visible)
    assert default_places(device) == most
    assert devices_of(device, [1], most, most=1) == (on,)
    assert device_meant(device) == meant
