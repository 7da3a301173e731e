"""What may leave a site about an error: the one door between a task's words and the rest of the world.

A task's text may quote whatever it read: a patient's name from a file's header, a cell of a table, the name of a file.
So the text stays in the site's log, and what leaves is decided by where the error came from, not by its wording:

    fedbus' own      every line from the command to the `raise`, of its causes too, is fedbus' and none is a task's:
                     the text was written from numbers, names of tensors and keys of the job, and leaves as it is
                     (not a StoreError's, which names files: folders may be called after people)
    ContractError    its `said` leaves; so does a StudyError's, made of kinds and counts, and a MissingPackageError's
    all others       the type, the place in installed code (function, name of the source file, line) and a reference,
                     under which the site's log has the text
"""

from __future__ import annotations

import errno
import secrets
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType
from typing import NewType

import fedbus
from fedbus.errors import ContractError, FedbusError, MissingPackageError, StoreError, StudyError

Sayable = NewType("Sayable", str)
"""Words that hold nothing of a site's data. Only this module, and whoever writes from numbers and keys, makes them."""

LONGEST_SAID = 2000
LONGEST_TRACEBACK = 64_000
LONGEST_PLACE = 200
_OURS = str(Path(fedbus.__file__).parent) + "/"
_TASKS = (_OURS + "tasks/", _OURS + "imaging/")
"""Code of fedbus that reads a site's data: treated as any task's."""
# importlib_metadata stands in for the library's own as soon as anybody imports it
_NOBODYS = sys.stdlib_module_names | {"torch", "numpy", "importlib_metadata"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An error in two halves: `said` may leave the site, `traceback` (the text in it) stays in its log.

    reference: what ties the two together; 8 hexadecimal digits.
    """

    said: Sayable
    traceback: str
    reference: str


def trouble_of(error: BaseException, *, data: Path | None = None) -> Trouble:
    """Divide an error; no place below the folder `data` is told. Never raises, whatever the error's own methods do."""
    reference = secrets.token_hex(4)
    return Trouble(said=_said(error, reference, data), traceback=_whole(error), reference=reference)


def sayable(text: str) -> Sayable:
    """Cut words that may leave to LONGEST_SAID characters, without characters that steer a terminal."""
    short = text if len(text) <= LONGEST_SAID else text[: LONGEST_SAID - 1] + "…"
    return Sayable("".join(char if char.isprintable() else " " for char in short))


def type_name(kind: type) -> str:
    """Return the name under which installed code has this class, or that of its first base which has one."""
    for cls in type.mro(kind):
        module, name = sys.modules.get(str(cls.__module__)), str(cls.__qualname__)
        found: object = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is cls:
            return name
    return "object"


def _said(error: BaseException, reference: str, data: Path | None) -> Sayable:
    try:
        if isinstance(error, ContractError | StudyError | MissingPackageError):
            return sayable(error.said)
        foreign = next((link for link in _chain(error) if not _is_ours(link)), None)
        if foreign is None:
            return sayable(str(error))
        words = f"{_kind(foreign)}{_place(foreign, data)}"
        return sayable(f"{words}; its text is in this site's log, reference {reference}")
    except Exception:  # noqa: BLE001 - an error whose own methods fail
        return Sayable(f"an error of the task; its text is in this site's log, reference {reference}")


def _whole(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - an error whose own methods fail
        text = f"an error of type {type(error)!r} that cannot be shown"
    half = LONGEST_TRACEBACK // 2
    return text if len(text) <= LONGEST_TRACEBACK else f"{text[:half]}\n[...]\n{text[-half:]}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and all that it came from, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [link.__cause__, link.__context__]


def _is_ours(error: BaseException) -> bool:
    files = [frame.f_code.co_filename for frame in _frames(error)]
    plain = isinstance(error, FedbusError) and not isinstance(error, StoreError)
    return plain and all(f.startswith(_OURS) and not f.startswith(_TASKS) for f in files)


def _frames(error: BaseException) -> list[FrameType]:
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _kind(error: BaseException) -> str:
    """The type, with the system's name for what happened: PermissionError (EACCES)."""
    code = errno.errorcode.get(error.errno or 0) if isinstance(error, OSError) else None
    return type_name(type(error)) + (f" ({code})" if code else "")


def _place(error: BaseException, data: Path | None) -> str:
    """Where the task's own code was, and where below it the error was raised."""
    lines = [
        (_package(frame), _line(frame.f_code, number))
        for frame, number in traceback.walk_tb(error.__traceback__)
        if _is_installed(frame, data) and not _is_engine(frame.f_code)
    ]
    if not lines:
        return ""
    first = next((package for package, _ in lines if package not in _NOBODYS), lines[0][0])
    own = [line for package, line in lines if package == first][-1]
    raised = lines[-1][1]
    return f" in {own}" + (f", raised in {raised}" if raised != own else "")


def _is_engine(code: CodeType) -> bool:
    return code.co_filename.startswith(_OURS) and not code.co_filename.startswith(_TASKS)


def _is_installed(frame: FrameType, data: Path | None) -> bool:
    """Say whether a frame's code was imported from a file outside the site's data, and not made by `exec`."""
    file, spec = frame.f_code.co_filename, frame.f_globals.get("__spec__")
    if not isinstance(spec, ModuleSpec) or spec.origin != file:
        return False
    return data is None or data.resolve() not in Path(file).resolve().parents


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def _line(code: CodeType, number: int) -> str:
    return f"{code.co_qualname[:LONGEST_PLACE]}, {Path(code.co_filename).name[:LONGEST_PLACE]} line {number}"
