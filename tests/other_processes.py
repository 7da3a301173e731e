"""Other processes as a test looks at them: each may end between two questions about it.

A process that has ended and whose parent has not yet asked for its exit code is a zombie. It does nothing any more, and
psutil calls it running, and raises when its command line or its environment is asked for: here it has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import psutil


def ended(process: psutil.Process) -> bool:
    """Whether a process does nothing any more; a zombie does not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def children(process: psutil.Process) -> list[psutil.Process]:
    """Those whose parent it is; none where it has ended."""
    try:
        return process.children()
    except psutil.Error:
        return []


def command(process: psutil.Process) -> list[str]:
    """Its command line; empty for one that has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def with_temporary_folder(folder: object) -> Iterator[psutil.Process]:
    """Live processes that write their temporary files below `folder`: what a run in a folder of its own has started."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(folder) and not ended(process):
                yield process
        except psutil.Error:
            continue


def commands(processes: Iterable[psutil.Process]) -> list[str]:
    """The command lines of those that have not ended meanwhile."""
    return [" ".join(words) for words in map(command, processes) if words]
