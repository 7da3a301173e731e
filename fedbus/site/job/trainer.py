"""The trainer process as the daemon sees it: started, asked, cancelled, found dead, ended.

The daemon never waits for torch: a training step that never yields, an out-of-memory kill or a CUDA error happen in
the child, while heartbeats and downloads go on here. A child that dies is an error of the current question.

Between the two stands a guardian (see `fedbus.training.guardian`): it ends all that a task has started together with
the trainer, also when this daemon is killed, and hands on a bounded part of what a task prints, which is logged here.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from datetime import timedelta
from typing import Protocol, TypeVar

import structlog

from fedbus.errors import DecodeError
from fedbus.runtime.cage import EXIT_NO_CAGE, Cage
from fedbus.site.cage import child_environment
from fedbus.site.trainer_errors import TrainerDiedError, TrainerFailedError
from fedbus.training import output
from fedbus.training import protocol as p

START_LIMIT = timedelta(seconds=120)
CLOSE_GRACE = timedelta(seconds=2)
CANCEL_GRACE = timedelta(seconds=10)
KILL_GRACE = timedelta(seconds=10)  # longer than a guardian waits for what it has killed

log = structlog.get_logger()
Progressed = Callable[[p.Progress], None]
R = TypeVar("R", p.Opened, p.Made, p.Examined, p.Scored)


class Trainer(Protocol):
    """Whoever trains for the daemon; one question at a time."""

    @property
    def pid(self) -> int: ...

    async def ask(self, command: p.Command) -> p.Reply:
        """Send a command and return its reply; TrainerDiedError, or TrainerFailedError with what went wrong."""

    async def cancel(self) -> None:
        """End a training that runs; its answer is then Cancelled."""


async def reply_of(kind: type[R], trainer: Trainer, command: p.Command) -> R:
    """Ask, and return a reply of this kind. Raises as `ask` does, TrainerDiedError also for any other reply."""
    reply = await trainer.ask(command)
    if not isinstance(reply, kind):
        raise TrainerDiedError(f"the trainer answered {type(reply).__name__} to {type(command).__name__}")
    return reply


class TrainerProcess:
    """A trainer in a process of its own. Made by `start_trainer`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        pid: int,
        on_progress: Progressed,
        cancel_grace: timedelta,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._on_progress = on_progress
        self._cancel_grace_s = cancel_grace.total_seconds()
        self._limit: asyncio.Timeout | None = None
        self._pid = pid

    @property
    def pid(self) -> int:
        return self._pid

    async def ask(self, command: p.Command) -> p.Reply:
        """Send a command and return its reply; TrainerDiedError, or TrainerFailedError with what went wrong."""
        limit = asyncio.timeout(None)
        self._limit = limit if isinstance(command, p.Train) else None
        try:
            async with limit:
                await p.write_message(self._writer, command)
                while isinstance(reply := await p.read_message(self._reader), p.Progress):
                    self._on_progress(reply)
        except TimeoutError as exc:
            _kill(self._process)
            words = f"the trainer was killed: its step went on for {self._cancel_grace_s:g} s after it was cancelled"
            raise TrainerDiedError(words, after_cancel=True) from exc
        except (EOFError, ConnectionError, DecodeError) as exc:
            cancelled = limit.when() is not None
            raise TrainerDiedError(await self._how_it_ended(), after_cancel=cancelled) from exc
        finally:
            self._limit = None
        if isinstance(reply, p.Failed):
            raise TrainerFailedError(reply)
        if not isinstance(reply, p.Reply):
            raise TrainerDiedError(f"the trainer answered with {type(reply).__name__}")
        return reply

    async def cancel(self) -> None:
        """End the training that runs, between two steps: its `ask` returns Cancelled, or the process is killed."""
        if self._limit is not None and self._limit.when() is None:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._cancel_grace_s)
        with suppress(ConnectionError):
            await p.write_message(self._writer, p.Cancel())

    async def _how_it_ended(self) -> str:
        code = await _exit_code(self._process)
        if code is None:
            return "the trainer closed its socket but still runs"
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (out of memory? see the kernel log)" if name == "SIGKILL" else ""
            return f"the trainer process {self.pid} was killed by {name}{hint}"
        return f"the trainer process {self.pid} ended with exit code {code}; its last words are in the log above"


@asynccontextmanager
async def start_trainer(
    on_progress: Progressed, *, threads: int, cancel_grace: timedelta = CANCEL_GRACE, cage: Cage | None = None
) -> AsyncIterator[Trainer]:
    """Start a trainer process; it is ended when the context is left, by force if need be, with all that it started.

    cage: around it and its guardian; its last writable folder is for temporary files.

    Raises TrainerDiedError when it does not start, whatever the reason: the next try may succeed.
    """
    try:
        process, ours = await _spawned(threads, cage)
    except OSError as exc:
        words = f"the trainer could not be started: {_kind(exc)}; see the site's log"
        log.error("trainer-not-started", program=sys.executable, error=str(exc))
        raise TrainerDiedError(words) from exc
    helpers = [asyncio.create_task(_log_output(process), name=f"output of trainer {process.pid}")]
    try:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        helpers.append(asyncio.create_task(_hang_up(process, writer), name=f"end of trainer {process.pid}"))
        with closing(writer):
            pid = await _hello(reader, process)
            yield TrainerProcess(process, reader, writer, pid=pid, on_progress=on_progress, cancel_grace=cancel_grace)
            with suppress(ConnectionError):
                await p.write_message(writer, p.Close())
    except BaseException:
        _kill(process)
        raise
    finally:
        await _end(process)
        await asyncio.gather(*helpers)


async def _spawned(threads: int, cage: Cage | None) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """The guardian's process, and our end of the trainer's socket."""
    ours, theirs = socket.socketpair()  # it has no path: none that is too long, none that a full disk lacks
    try:
        with theirs:
            command = _command(theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *(command if cage is None else cage.around(command)),
                stdin=asyncio.subprocess.PIPE,  # the lifeline: its end is closed when we end, in whatever way
                stdout=asyncio.subprocess.PIPE,
                env=_environment(threads, cage),
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


def _kind(exc: OSError) -> str:
    """What the system says, without the names of files."""
    return f"{type(exc).__name__} ({errno.errorcode.get(exc.errno or 0, 'no number')})"


def _command(number: int) -> list[str]:
    """-P: modules of the folder that the daemon was started in are not imported."""
    guardian = [sys.executable, "-P", "-m", "fedbus.training.guardian", str(number)]
    # -u: the last words of a process that is killed are not lost in a buffer
    return [*guardian, sys.executable, "-P", "-u", "-m", "fedbus.training", "--socket", str(number)]


def _environment(threads: int, cage: Cage | None) -> dict[str, str]:
    """A task has no business with the site's login at the broker."""
    more = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if cage is not None and cage.writable:
        more["TMPDIR"] = str(cage.writable[-1])
    return child_environment(more)


async def _hello(reader: asyncio.StreamReader, process: asyncio.subprocess.Process) -> int:
    """Wait until the trainer has started, and return its process id; TrainerDiedError when it ends or takes too long.

    It ends with its guardian, see `_hang_up`.
    """
    try:
        async with asyncio.timeout(START_LIMIT.total_seconds()):
            hello = await p.read_message(reader)
    except (TimeoutError, EOFError, ConnectionError, DecodeError) as exc:
        code = await _exit_code(process)
        if code == EXIT_NO_CAGE:
            raise TrainerDiedError("the trainer could not be kept from the site's key; see the site's log") from exc
        how = "in time" if code is None else f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise TrainerDiedError(
            f"the trainer process {process.pid} did not start ({how});"
            " is fedbus installed with torch in this environment?"
        ) from exc
    if not isinstance(hello, p.Hello):
        raise TrainerDiedError(f"the trainer process {process.pid} began with {type(hello).__name__} instead of Hello")
    return hello.pid


async def _exit_code(process: asyncio.subprocess.Process) -> int | None:
    """How a process ended whose stream has ended; None when it still runs."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_GRACE.total_seconds()):
            return await process.wait()
    return None


async def _hang_up(process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
    """End the stream when the trainer has ended: processes that it forked may hold its end of the socket open."""
    await process.wait()
    writer.transport.abort()


async def _log_output(process: asyncio.subprocess.Process) -> None:
    """Log what the task prints, as far as the guardian hands it on."""
    if process.stdout is None:
        return
    async for line in process.stdout:
        text = "".join(
            c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line[1:-1].decode(errors="replace")
        )
        if line.startswith(output.SAID):
            log.warning("task-output-lost", text=text)
        else:
            log.info("task-output", line=text)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Wait for the child, a short while when it was asked to close; then by force."""
    for grace, force in ((CLOSE_GRACE, _kill), (KILL_GRACE, _kill_guardian)):
        try:
            async with asyncio.timeout(grace.total_seconds()):
                await process.wait()
                return
        except TimeoutError:
            force(process)
    await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    """Let go of the lifeline: the guardian kills the trainer and what it started."""
    if process.stdin is not None:
        process.stdin.close()


def _kill_guardian(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
