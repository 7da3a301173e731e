"""A process of fedbus from its first line to its exit code: nothing here costs time to import.

Ctrl-C is 130 and no traceback at any moment: within an import the process ends at once, for an exception may be caught
there by who does not know it, and nothing is open yet; elsewhere it is KeyboardInterrupt, so that what is open closes.

0  done        1  an error that the message explains        2  wrong usage or setting        130  interrupted
3  nobody has answered yet: the broker has what was published, and an aggregator takes it later
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn, TypeVar

from fedbus.runtime.collector import search_rarely
from fedbus.runtime.streams import guard_command

T = TypeVar("T")

INTERRUPTED = 130
SHOW_CURSOR = "\x1b[?25h"


def run_process(main: Callable[[], int | None]) -> NoReturn:
    """Run `main`, which may return an exit code or raise SystemExit, and leave. Bugs keep their traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_ctrl_c)
        sys.unraisablehook = _unraisable
    guard_command()
    search_rarely()
    code: int | str | None
    try:
        code = _code_of(main)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, leave)  # all is done; threads and libraries say goodbye
    sys.exit(code)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run; Ctrl-C cancels `main`, and KeyboardInterrupt comes when it has closed what it had open."""
    import asyncio

    before = signal.getsignal(signal.SIGINT)
    if before is _on_ctrl_c:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio replaces no other one
    try:
        return asyncio.run(main)
    finally:
        signal.signal(signal.SIGINT, before)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Signal handler: end the process now, with nothing open. SIGTERM is how a daemon is asked to end: 0."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    os._exit(0 if number == signal.SIGTERM else 128 + number)


def explain(error: Exception) -> int:
    """Say an error of ours on standard error and return its exit code; raise any other one again."""
    from fedbus.errors import FedbusError, JobSpecError, SettingsError, UnansweredError
    from fedbus.runtime.printable import printable, printable_lines

    match error:
        case JobSpecError():
            print("fedbus: the job spec was refused:", file=sys.stderr)
            for problem in error.problems:
                print(f"  {printable(problem.path or 'job spec')}: {printable_lines(problem.message)}", file=sys.stderr)
        case FedbusError():
            print(f"fedbus: {printable_lines(error)}", file=sys.stderr)
        case _:
            raise error
    match error:
        case SettingsError():
            return 2
        case UnansweredError():
            return 3
        case _:
            return 1


def _code_of(main: Callable[[], int | None]) -> int | str | None:
    code: int | str | None
    try:
        try:
            code = main()
        except SystemExit as exc:
            code = exc.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        return 1
    except Exception as exc:  # noqa: BLE001  explain() raises again what is not ours
        return explain(exc)
    return code


def _on_ctrl_c(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            leave(number, frame)
        frame = frame.f_back
    raise KeyboardInterrupt


def _unraisable(found: Any) -> None:
    """A Ctrl-C that came within a finalizer or a callback of the interpreter, where no exception gets out."""
    if isinstance(found.exc_value, KeyboardInterrupt):
        leave(signal.SIGINT, None)
    sys.__unraisablehook__(found)
