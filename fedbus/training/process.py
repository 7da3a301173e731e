"""The trainer process: commands come in on the socket that it was started with, replies go out.

    reader thread   receives; Cancel and the end of the stream take effect at once, also while a task trains
    main thread     does everything else in the order it came

A daemon that is gone ends this process at once, even in a training step that never yields: the reader thread sees the
stream end. A step that holds the interpreter's lock blocks that thread too; then the kernel kills us with our parent.
Errors of a task are replies; the process lives on unless the CUDA context is broken. What a reply says of an error is
decided in `sayable`: its text stays at the site.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from fedbus.errors import ContractError, DecodeError, LayoutError, MissingPackageError, ProtocolError
from fedbus.training import protocol as p
from fedbus.training.device import is_broken, memory_of
from fedbus.training.examine import examine
from fedbus.training.sayable import trouble_of
from fedbus.training.session import Session

PR_SET_PDEATHSIG = 1
EXIT_DONE, EXIT_BROKEN, EXIT_GARBAGE = 0, 1, 2


class Inbox:
    """Commands in order, each with the event that a later Cancel sets.

    `read_for_ever` runs in a thread of its own; `leave` ends the process there, with an exit code.
    """

    def __init__(self, sock: socket.socket, *, leave: Callable[[int], None]) -> None:
        self._sock = sock
        self._leave = leave
        self._commands: SimpleQueue[tuple[p.Message, threading.Event]] = SimpleQueue()

    def read_for_ever(self) -> None:
        cancel = threading.Event()
        while True:
            try:
                command = p.receive_message(self._sock)
            except (EOFError, OSError):
                return self._leave(EXIT_DONE)
            except DecodeError as exc:
                print(f"fedbus trainer: the site daemon sent garbage: {exc}", file=sys.stderr, flush=True)
                return self._leave(EXIT_GARBAGE)
            if isinstance(command, p.Cancel):
                cancel.set()
                cancel = threading.Event()
            else:
                self._commands.put((command, cancel))

    def next(self) -> tuple[p.Message, threading.Event]:
        return self._commands.get()


class Trainer:
    """Answers commands. `send` writes a message to the daemon; it raises OSError when the daemon is gone."""

    def __init__(self, send: Callable[[p.Message], None]) -> None:
        self._send = send
        self._session: Session | None = None
        self._data: Path | None = None

    def serve(self, inbox: Inbox) -> int:
        """Answer commands until Close, or until only a new process can go on; return the exit code."""
        while True:
            command, cancel = inbox.next()
            if isinstance(command, p.Close):
                if self._session is not None:
                    self._session.close()
                return EXIT_DONE
            try:
                reply = self._answer(command, cancel)
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a task raises is reported, it lives on
                self._send(_failed(exc, self._data))
                if is_broken(exc):
                    return EXIT_BROKEN
            else:
                self._send(reply)

    def _answer(self, command: p.Message, cancel: threading.Event) -> p.Reply:
        if isinstance(command, p.Open):
            self._data = Path(command.data)
            if self._session is not None:
                self._session.close()
                self._session = None  # two at a time would take twice the memory
                gc.collect()
            self._session = Session(command)
            return self._session.opened()
        if isinstance(command, p.Examine):
            self._data = Path(command.data)
            return examine(command)
        if self._session is None:
            raise ProtocolError(f"the first command is Open, got {type(command).__name__}")
        return self._of_session(self._session, command, cancel)

    def _of_session(self, session: Session, command: p.Message, cancel: threading.Event) -> p.Reply:
        match command:
            case p.MakeInitial():
                return session.make_initial(command)
            case p.Load():
                return session.load(command)
            case p.Train():
                return session.train(command, cancel, self._tell)
            case p.Score():
                return session.score(command)
            case p.Save():
                return session.save(command)
            case p.Cancel() | p.Close():
                raise AssertionError(f"{type(command).__name__} is not answered here")
            case _:
                raise ProtocolError(f"expected a command, got {type(command).__name__}")

    def _tell(self, step: int, steps: int, loss: float | None) -> None:
        with suppress(OSError):  # the reader thread ends the process; a task shall not see this error
            used, there = (0, 0) if self._session is None else memory_of(self._session.device)
            said = p.Progress(step=step, steps=steps, loss=loss, memory_used_bytes=used, memory_bytes=there)
            self._send(said)


def main(arguments: Sequence[str] | None = None) -> int:
    """Connect to the site daemon and serve it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fedbus.training", description="Started by a site daemon.")
    parser.add_argument("--socket", required=True, type=int, metavar="NUMBER", help="the open socket to the daemon")
    number = parser.parse_args(arguments).socket
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; the daemon decides when we end
    sock = socket.socket(fileno=number)  # closed by the end of the process: it says that we ended
    sock.set_inheritable(False)
    # _exit and not exit: the main thread may be inside a step that never yields
    inbox = Inbox(sock, leave=os._exit)
    threading.Thread(target=inbox.read_for_ever, name="reader", daemon=True).start()
    with suppress(ConnectionError):
        p.send_message(sock, p.Hello(pid=os.getpid()))
        return Trainer(lambda message: p.send_message(sock, message)).serve(inbox)
    return EXIT_DONE


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _failed(error: BaseException, data: Path | None) -> p.Failed:
    """Only what fedbus itself knows to be final is: a folder may be mounted later, a GPU be free again."""
    trouble = trouble_of(error, data=data)
    return p.Failed(
        error=trouble.said,
        traceback=trouble.traceback,
        fatal=isinstance(error, ContractError | LayoutError | MissingPackageError),
        reference=trouble.reference,
    )
