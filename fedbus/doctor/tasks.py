"""Can each installed task be imported, and does torch see the GPU? Asked in a child, for a task is foreign code.

One child imports one task after the other and says a line for each; when it dies or hangs, another one goes on with the
task after that. The child gets no broker URL and no kit.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fedbus.doctor.finding import Area, Finding, Reporter
from fedbus.doctor.limits import Deadline
from fedbus.site.cage import child_environment

GPU = Reporter(Area.MACHINE, "gpu")
TASKS = Reporter(Area.TASKS, "tasks")
MOST_TEXT = 300
CHILD = "fedbus.training.importable"


Around = Callable[[list[str]], list[str]]


def examine_tasks(
    names: Sequence[str], *, device: str, gpus: int, deadline: Deadline, around: Around = list
) -> Iterator[Finding]:
    """Import each of these tasks; `device` is the site's setting, `gpus` how many NVIDIA devices the kernel has.

    `around` makes the command of the child one in a cage that keeps the site's key from it.
    """
    left = list(names)
    while deadline.left_s > 0:
        said: dict[str, Any] = {}
        for said in _lines(left, deadline, around):
            if "task" in said:
                left.remove(said["task"])
                yield _imported(said["task"], said["error"])
            elif "gpus" in said:
                yield gpu_finding(said["gpus"], said["torch"], device=device, there=gpus)
                return
        if deadline.left_s <= 0:
            break
        if "begin" not in said:
            yield TASKS.fail("the process that imports the tasks ended without a word", "run `fedbus doctor` again")
            return
        left.remove(said["begin"])
        yield _of(said["begin"]).fail("importing it ends the whole process", "have its package mended, or leave it out")
    for name in left:
        yield _of(name).warn("not imported in the time of this check", "run again when the machine is less busy")


def gpu_finding(seen: Sequence[str], torch: str, *, device: str, there: int) -> Finding:
    """What torch sees against what the machine has and the settings ask for."""
    wanted = device.startswith("cuda")
    if seen:
        return GPU.ok(f"torch {torch} sees {len(seen)}: {', '.join(seen)[:MOST_TEXT]}")
    if there:
        return (GPU.fail if wanted else GPU.warn)(
            f"the machine has {there} NVIDIA devices, torch {torch} sees none",
            "install a CUDA build of torch that fits the driver (nvidia-smi says which)",
        )
    if wanted:
        return GPU.fail(f"device is {device} and this machine has no GPU", "set device to auto or cpu")
    return GPU.ok(f"none; training runs on the processor (torch {torch})")


def _imported(name: str, error: str) -> Finding:
    if error:
        return _of(name).fail(
            f"cannot be imported: {error[:MOST_TEXT]}",
            "install what it lacks (an extra such as fedbus[monai]), or leave it out of `tasks`",
        )
    return _of(name).ok("can be imported")


def _of(task: str) -> Reporter:
    return Reporter(Area.TASKS, f"task {task}")


def _lines(names: Sequence[str], deadline: Deadline, around: Around) -> Iterator[dict[str, Any]]:
    """What one child says, as it says it, until it ends or the time is over."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as said:
        child = subprocess.Popen(
            around([sys.executable, "-m", CHILD, str(writing), *names]),
            env=child_environment(),
            pass_fds=[writing],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        try:
            yield from map(json.loads, _read(said.fileno(), deadline))
        finally:
            child.kill()
            child.wait()


def _read(number: int, deadline: Deadline) -> Iterator[bytes]:
    rest = b""
    while deadline.left_s > 0 and select.select([number], [], [], deadline.left_s)[0]:
        block = os.read(number, 65536)
        if not block:
            return
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
