"""The aggregator's threads: a full disk is waited out, everything else is raised."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from fedbus.aggregator.workers import Disk, Worker
from fedbus.errors import DiskFullError, StoreError


class Watched(Disk):
    """Tells of the first failure."""

    on_failed = staticmethod(lambda: None)

    def failed(self, exc: DiskFullError) -> None:
        super().failed(exc)
        self.on_failed()


class Write:
    """A write that fails so many times for want of room."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.full_while_it_ran: list[bool] = []

    def __call__(self, disk: Disk) -> str:
        self.full_while_it_ran.append(disk.full is not None)
        if len(self.full_while_it_ran) <= self.failures:
            raise DiskFullError("cannot spool x: the disk is full")
        return "written"


async def test_a_write_is_made_again_until_there_is_room_and_that_is_said() -> None:
    # given a disk that is full for two tries
    disk, told = Disk(), list[str]()
    disk.told = told.append
    write = Write(failures=2)
    # when something is written
    with Worker("store", disk, retry=timedelta(milliseconds=1)) as store:
        result = await store(write, disk)
    # then it is written, the pause was known meanwhile, and is said when it is over
    assert (result, disk.full) == ("written", None)
    assert write.full_while_it_ran == [False, True, True]
    assert told == ["the aggregator's disk was full for 0 s: nothing was taken"]


async def test_others_are_served_while_a_write_waits_for_room() -> None:
    # given a write that waits
    disk, full = Watched(), asyncio.Event()
    disk.on_failed = full.set
    with Worker("store", disk, retry=timedelta(hours=1)) as store:
        waiting = asyncio.create_task(store(Write(failures=1), disk))
        await full.wait()
        # when something is read, then it is
        assert await store(len, "abc") == 3
        waiting.cancel()


async def test_other_errors_of_the_store_are_raised() -> None:
    def damaged() -> None:
        raise StoreError("cannot read ledger")

    with Worker("store", Disk()) as store, pytest.raises(StoreError, match="cannot read ledger"):
        await store(damaged)
