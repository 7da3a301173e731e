"""How many jobs are trained here at once, on which devices, and which of those that wait comes next. Decisions, no I/O.

A job has a place while its trainer lives. Those that wait are served by priority, then the submitter who was served
longest ago, then the order in which they came. Nobody's work is interrupted for that.

Two jobs that need the same two sites could each hold a place at one of them, and wait for the other for ever. So a job
that has no version yet gives its place back after a while when others wait (`yielded`), and comes after them.

A place has its part of the site's GPUs. A job that can use several takes those of all places that are free and that
nobody waits for, and gives back what is beyond its share between two trainings, as soon as somebody waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(slots=True, kw_only=True, eq=False)
class Waiting:
    """A job that asks for a place; `more`: other places whose devices it has got as well."""

    job: str
    priority: int
    submitter: str
    came: int
    yielded: bool
    more: tuple[int, ...] = ()
    turn: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Places:
    """The places of a site, numbered from 0."""

    def __init__(self, most: int) -> None:
        self.count = most
        self._free = list(range(most))
        self._holding: list[Waiting] = []
        self._waiting: list[Waiting] = []
        self._served: dict[str, int] = {}
        self._asked = 0

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for a place."""
        return bool(self._waiting)

    def before(self, job: str) -> int:
        """How many that wait come before this one."""
        jobs = [one.job for one in sorted(self._waiting, key=self._rank)]
        return jobs.index(job) if job in jobs else 0

    def ask(self, job: str, *, priority: int, submitter: str, yielded: bool = False) -> Waiting:
        """Wait for a place: `turn` gives its number. Whoever asks must `leave`, whether or not it got one."""
        self._asked += 1
        one = Waiting(job=job, priority=priority, submitter=submitter, came=self._asked, yielded=yielded)
        self._waiting.append(one)
        self._serve()
        return one

    def leave(self, one: Waiting) -> None:
        """Give the place back, or wait for none any more."""
        if one in self._waiting:
            self._waiting.remove(one)
        elif one in self._holding:
            self._holding.remove(one)
            self._free = sorted([*self._free, one.turn.result(), *one.more])
            one.more = ()
        self._serve()

    def take_more(self, one: Waiting, most: int) -> None:
        """Add to a job's place up to `most` others that are free, unless somebody waits for one."""
        if not self._waiting:
            one.more, self._free = (*one.more, *self._free[:most]), self._free[most:]

    def too_many(self, one: Waiting) -> bool:
        """Whether a job has more places than its share while others wait."""
        return bool(self._waiting) and len(one.more) > self._share

    def give_back(self, one: Waiting) -> None:
        """Keep no more places than a job's share."""
        self._free = sorted([*self._free, *one.more[self._share :]])
        one.more = one.more[: self._share]
        self._serve()

    @property
    def _share(self) -> int:
        """Places beside its own that are a job's, were all that hold or wait for one served alike."""
        return max(0, self.count // max(1, len(self._holding) + len(self._waiting)) - 1)

    def _serve(self) -> None:
        while self._free and self._waiting:
            one = min(self._waiting, key=self._rank)
            self._waiting.remove(one)
            if not one.turn.done():
                self._asked += 1
                self._served[one.submitter] = self._asked
                self._holding.append(one)
                one.turn.set_result(self._free.pop(0))

    def _rank(self, one: Waiting) -> tuple[bool, int, int, int]:
        return one.yielded, -one.priority, self._served.get(one.submitter, 0), one.came


def default_places(device: str) -> int:
    """One for each GPU that may be used, else one; without a look at the GPUs themselves."""
    if device not in ("auto", "cuda"):
        return 1
    return max(1, gpus())


def gpus() -> int:
    """How many NVIDIA GPUs this process may use, as far as the system's files and CUDA_VISIBLE_DEVICES say."""
    there = sum(1 for _ in GPUS.iterdir()) if GPUS.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there if visible is None else min(there, len([one for one in visible.split(",") if one.strip()]))


def device_meant(device: str) -> str:
    """What `auto` comes to here, as far as is known before a trainer has looked."""
    return ("cuda" if gpus() else "cpu") if device == "auto" else device


def most_devices(device: str, *, ranks: int | None, batch_size: int) -> int:
    """On how many devices a job can train at once: no rank is without an example of each batch."""
    return min(batch_size, ranks or (gpus() if _has_several(device) else 1))


def more_places(device: str, devices: int) -> int:
    """How many places beside its own a job of so many devices can use: each has a GPU of its own, or there are none."""
    return devices - 1 if _has_several(device) else 0


def _has_several(device: str) -> bool:
    return device in ("auto", "cuda") and gpus() > 1


def devices_of(device: str, held: Sequence[int], places: int, *, most: int) -> tuple[str, ...]:
    """The devices of a trainer that holds these of the site's `places`, at most so many; its own place comes first.

    The GPUs are dealt out to the places in turn. The CPU is as many devices as are asked for.
    """
    if not _has_several(device):
        return (device,) * most if device_meant(device) == "cpu" else (device,)
    there = gpus()
    dealt = [f"cuda:{gpu}" for place in held for gpu in range(place % there, there, places)]
    return tuple(dealt[:most])
