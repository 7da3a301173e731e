"""This machine: room on the disk, who works in the state folder, what a dead daemon left, the clock."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from fedbus.doctor.finding import Area, Finding, Reporter
from fedbus.doctor.kit import span
from fedbus.errors import StoreError
from fedbus.store.lock import holder_of
from fedbus.trust.signing import CLOCKS

DISK = Reporter(Area.MACHINE, "disk")
DAEMON = Reporter(Area.MACHINE, "daemon")
LEFTOVERS = Reporter(Area.MACHINE, "leftovers")
CLOCK = Reporter(Area.MACHINE, "clock")
MIB = 1 << 20
LEAST_FREE_BYTES = 256 * MIB
ENOUGH_FREE_BYTES = 2048 * MIB
LEAST_FREE_FILES = 1000
TRAINER = "fedbus.training"
TIME_ERROR = 5
SYNCHRONISE = "let a time server keep it, a hospital often has one of its own: timedatectl set-ntp true"


def disk(folder: Path) -> Finding:
    """Room and the right to write where the daemon keeps its state."""
    place = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    if not os.access(place, os.W_OK | os.X_OK):
        return DISK.fail(f"this user may not write to {place}", f"run as the daemon's user, or chown {place}")
    try:
        inodes = os.statvfs(place)
        return room(folder, shutil.disk_usage(place).free, inodes.f_favail if inodes.f_files else None)
    except OSError as exc:
        return DISK.fail(f"{place} cannot be looked at: {exc.strerror}", "mount it again")


def room(folder: Path, free_bytes: int, free_files: int | None) -> Finding:
    """`free_files`: how many more files have room, None where there is no such limit."""
    if free_bytes < LEAST_FREE_BYTES:
        return DISK.fail(
            f"{folder} has {free_bytes // MIB} MiB free", f"free some: at least {ENOUGH_FREE_BYTES // MIB} MiB"
        )
    if free_files is not None and free_files < LEAST_FREE_FILES:
        return DISK.fail(f"{folder} has room for {free_files} more files", "delete files there (inodes)")
    if free_bytes < ENOUGH_FREE_BYTES:
        return DISK.warn(f"{folder} has {free_bytes // MIB} MiB free", "free some: a model and its updates lie there")
    return DISK.ok(f"{folder} has {free_bytes // MIB} MiB free")


def state(folder: Path, *, what: str) -> Iterator[Finding]:
    """Which daemon works in a state folder, and what waits there while none does."""
    if not folder.exists():
        yield DAEMON.skipped(f"no {what} has run here yet ({folder})")
        return
    try:
        holder = holder_of(folder)
    except (OSError, StoreError) as exc:
        yield DAEMON.fail(f"{folder}/lock cannot be read: {exc}", "run this as the daemon's user")
        return
    if holder is not None:
        yield DAEMON.ok(f"{what} runs (process {holder})")
        return
    waiting = sum(1 for _ in folder.rglob("*.frames"))
    yield DAEMON.skipped(f"no {what} runs on {folder}")
    if waiting:
        yield LEFTOVERS.warn(
            f"{waiting} updates wait in {folder} for a daemon", "start it: it sends them; nothing is lost until then"
        )


def leftovers(processes: Iterable[tuple[int, int, str]]) -> Finding:
    """Trainers whose daemon is gone; they hold the GPU. `processes` are pid, parent and command line."""
    orphans = [pid for pid, parent, command in processes if TRAINER in command.split() and parent == 1]
    if orphans:
        pids = " ".join(map(str, orphans[:10]))
        return LEFTOVERS.warn(f"trainers of a daemon that is gone still run: {pids}", f"end them: kill {pids}")
    return LEFTOVERS.ok("no trainer of a dead daemon is left")


def processes(proc: Path = Path("/proc")) -> Iterator[tuple[int, int, str]]:
    """All processes that this user may look at."""
    for folder in proc.iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            yield int(folder.name), int(stat.rpartition(")")[2].split()[1]), command


# ------------------------------------------------------------------ clock


def clock_is_kept() -> bool | None:
    """Whether the kernel says that something keeps its clock (adjtimex); None where it does not say."""
    # struct timex has 208 bytes; `modes` 0 asks and changes nothing
    buffer = ctypes.create_string_buffer(256)
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (AttributeError, OSError):
        return None
    return None if answer < 0 else answer != TIME_ERROR


def own_clock(kept: bool | None) -> Finding:
    """What this machine alone can know of its clock."""
    if kept is None:
        return CLOCK.skipped("this kernel does not say whether anything keeps its clock")
    if not kept:
        return CLOCK.warn(
            "nothing keeps this machine's clock (no NTP): what is signed here counts only while it is less than "
            f"{span(CLOCKS)} wrong; `fedbus sites` says by how much a site's clock differs from the aggregator's",
            SYNCHRONISE,
        )
    return CLOCK.ok("a time server keeps this machine's clock")
