"""Whose turn it is at a site that trains other jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbus.site import places
from fedbus.site.places import Places, Waiting, default_places, device_meant, device_of


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
    for number in range(there):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    monkeypatch.setattr(places, "GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert default_places(device) == most
    assert device_of(device, 1) == on
    assert device_meant(device) == meant
