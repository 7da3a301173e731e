"""How many jobs are trained here at once, and which of those that wait comes next. Decisions, no I/O.

A job has a place while its trainer lives. Those that wait are served by priority, then the submitter who was served
longest ago, then the order in which they came. Nobody's work is interrupted for that.

Two jobs that need the same two sites could each hold a place at one of them, and wait for the other for ever. So a job
that has no version yet gives its place back after a while when others wait (`yielded`), and comes after them.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass(slots=True, kw_only=True, eq=False)
class Waiting:
    """A job that asks for a place."""

    job: str
    priority: int
    submitter: str
    came: int
    yielded: bool
    turn: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Places:
    """The places of a site, numbered from 0."""

    def __init__(self, most: int) -> None:
        self._free = list(range(most))
        self._waiting: list[Waiting] = []
        self._served: dict[str, int] = {}
        self._count = 0

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
        self._count += 1
        one = Waiting(job=job, priority=priority, submitter=submitter, came=self._count, yielded=yielded)
        self._waiting.append(one)
        self._serve()
        return one

    def leave(self, one: Waiting) -> None:
        """Give the place back, or wait for none any more."""
        if one in self._waiting:
            self._waiting.remove(one)
        elif one.turn.done() and not one.turn.cancelled():
            self._free.append(one.turn.result())
            self._free.sort()
        self._serve()

    def _serve(self) -> None:
        while self._free and self._waiting:
            one = min(self._waiting, key=self._rank)
            self._waiting.remove(one)
            if not one.turn.done():
                self._count += 1
                self._served[one.submitter] = self._count
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


def device_of(device: str, place: int) -> str:
    """The device of the trainer in a place: with several GPUs each place has its own."""
    return f"cuda:{place}" if device in ("auto", "cuda") and gpus() > 1 else device
