"""`python -m fedbus.runtime.cage RULES COMMAND...`: a process that cannot read what is hidden, nor what it starts.

Landlock (Linux 5.13, Debian 12 has it on) needs no privileges, lasts over exec, and nobody inside can lift it. It knows
allowed paths alone, so of every folder on the way to a hidden path all other entries are allowed. Inside, memory and
environment of processes outside cannot be read either (ptrace is refused, and so is /proc/PID/mem). What was
there when the process started counts: a file that comes later beside a hidden one cannot be read.

    RULES   JSON: {"hidden": [paths], "writable": [folders]}; files elsewhere are read and run, and not written, or
            as the user may when "writable" is null

Fails closed: where the kernel cannot, or a hidden file has a second name, the command is not run, and it is said why.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
PATH_BENEATH = 1
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
EXIT_NO_CAGE = 77
DEVICES = Path("/dev")
# DAC_READ_SEARCH (files by handle), SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, MKNOD, PERFMON (memory), BPF
ROOTS_WAYS_OUT = (2, 16, 17, 19, 21, 27, 38, 39)

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REFER, TRUNCATE = 1 << 13, 1 << 14
OF_FIRST = (1 << 13) - 1
READING = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class CageError(Exception):
    """No cage can be made; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cage:
    """Whoever is inside can neither read nor write what is `hidden`, and writes below `writable` alone.

    writable: None: wherever nothing is hidden.
    """

    hidden: tuple[Path, ...]
    writable: tuple[Path, ...] | None

    def around(self, command: Sequence[str]) -> list[str]:
        """The command, inside."""
        writable = None if self.writable is None else [str(path) for path in self.writable]
        rules = {"hidden": [str(path) for path in self.hidden], "writable": writable}
        return [sys.executable, "-P", "-m", "fedbus.runtime.cage", json.dumps(rules), *command]


def trouble() -> str:
    """Why this machine can make no cage; empty when it can."""
    try:
        _version()
    except CageError as exc:
        return str(exc)
    return ""


def enter(cage: Cage) -> None:
    """Shut this process in, for good, with all that it will start. Raises CageError: it is then not shut in."""
    handled = _handled(_version())
    disks = _disks() if os.geteuid() == 0 else set()  # root could read the file's blocks
    hidden = (*(_resolved(path) for path in cage.hidden), *disks)
    writable = (*(path.resolve() for path in cage.writable or ()), *_devices(disks))
    for path in writable:
        if any(_is_below(one, path) for one in hidden):
            raise CageError(f"{path} is to be written by the trainer and holds what is hidden from it: move one away")
    ruleset = _call(CREATE_RULESET, ctypes.byref(_Ruleset(handled)), ctypes.sizeof(_Ruleset), 0)
    try:
        _allow(ruleset, Path("/"), READ_DIR)  # names of files are no secret
        for path in _beside(hidden):
            _allow(ruleset, path, handled if cage.writable is None else READING)
        for path in writable:
            _allow(ruleset, path, handled)
        _give_up_privileges()
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def keep_memory_private() -> None:
    """Let no other process of this user read the memory or the environment of this one, and write no core file."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _version() -> int:
    if sys.platform != "linux":
        raise CageError("the site's key can be kept from its trainer on Linux alone (Landlock)")
    found = _syscall(CREATE_RULESET, None, 0, VERSION_FLAG)
    if found >= 1:
        return found
    why = {
        errno.ENOSYS: "this kernel has no Landlock: use Linux 5.13 or later, Debian 12's kernel has it",
        errno.EOPNOTSUPP: "Landlock is off in this kernel: add landlock to the boot parameter lsm=",
        errno.EPERM: "Landlock is forbidden here: let the container's seccomp profile allow its three calls",
    }
    raise CageError(why.get(ctypes.get_errno(), f"Landlock fails: {os.strerror(ctypes.get_errno())}"))


def _handled(version: int) -> int:
    return OF_FIRST | (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)


def _resolved(path: Path) -> Path:
    """The real path. Raises CageError for a file with a second name, by which it could be read."""
    found = path.resolve()
    with suppress(FileNotFoundError):
        status = os.stat(found)
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            raise CageError(f"{found} has {status.st_nlink} names (hard links): delete the others")
    if found == Path("/"):
        raise CageError("the whole file system cannot be hidden")
    return found


def _disks() -> set[Path]:
    """Block devices, and folders of /dev that hold some."""
    return {entry for entry in DEVICES.iterdir() if any(map(_is_disk, (entry, *_below(entry))))}


def _below(folder: Path) -> list[Path]:
    return list(folder.rglob("*")) if folder.is_dir() and not folder.is_symlink() else []


def _is_disk(path: Path) -> bool:
    with suppress(OSError):
        return path.is_block_device()
    return False


def _devices(disks: set[Path]) -> list[Path]:
    """GPUs, /dev/null, shared memory: the whole folder where it may be, for drivers put devices there at first use."""
    return [entry for entry in DEVICES.iterdir() if entry not in disks] if disks else [DEVICES]


def _give_up_privileges() -> None:
    """No program with more rights can be started; and root gives up what would lead out, from the next exec on."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if os.geteuid() == 0:
        for capability in ROOTS_WAYS_OUT:
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise CageError(f"no_new_privs cannot be set: {os.strerror(ctypes.get_errno())}")


def _beside(hidden: Sequence[Path]) -> Iterator[Path]:
    """The entries of every folder on the way to a hidden path that do not lead to one; nothing in a hidden folder."""
    outermost = [path for path in hidden if not any(other in path.parents for other in hidden)]
    on_the_way = {above for path in outermost for above in path.parents}
    for folder in sorted(on_the_way or {Path("/")}):
        with suppress(OSError):
            yield from (entry for entry in sorted(folder.iterdir()) if entry not in on_the_way and entry not in hidden)


def _is_below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _allow(ruleset: int, path: Path, access: int) -> None:
    """What is gone, or cannot be opened by us, need not be allowed. A link allows nothing: what it leads to counts."""
    try:
        number = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        mode = os.fstat(number).st_mode
        if stat.S_ISLNK(mode):
            return
        rule = _Beneath(access if stat.S_ISDIR(mode) else access & OF_FILES, number)
        _call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(number)


def _call(number: int, *arguments: object) -> int:
    found = _syscall(number, *arguments)
    if found < 0:
        raise CageError(f"Landlock fails: {os.strerror(ctypes.get_errno())}")
    return found


def _syscall(number: int, *arguments: object) -> int:
    return int(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))


def main(arguments: Sequence[str]) -> NoReturn:
    """Enter the cage and run the command in it."""
    rules, *command = arguments
    given = json.loads(rules)
    try:
        writable = None if given["writable"] is None else _paths(given["writable"])
        enter(Cage(hidden=_paths(given["hidden"]), writable=writable))
    except CageError as exc:
        print(f"fedbus: the trainer is not started: {exc}", file=sys.stderr, flush=True)
        sys.exit(EXIT_NO_CAGE)
    os.execv(command[0], command)  # noqa: S606 - as everywhere, an argument list of ours


def _paths(texts: Iterable[str]) -> tuple[Path, ...]:
    return tuple(map(Path, texts))


if __name__ == "__main__":
    main(sys.argv[1:])
