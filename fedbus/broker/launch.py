"""Starting the two processes of a node, waiting until they answer, ending them: what was started is never lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from fedbus.broker.process import POLL_S, ProcessId, answers, signals_held, spawn
from fedbus.broker.record import Record
from fedbus.errors import NodeError

AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
CONNECTION_START = b"\x01\x00\x00"  # a method frame on channel 0
EPMD_LIMIT = timedelta(seconds=10)


class Launch:
    """The processes of the node in folder `base`; `record` has every one that was started, and so has node.json.

    Until `within` from now it may take to answer. NodeError with the end of the node's log when it does not, or ends.
    """

    def __init__(
        self, base: Path, record: Record, env: Mapping[str, str], *, within: timedelta, die_with_parent: bool
    ) -> None:
        self.record = record
        self._base = base
        self._env = env
        self._deadline = time.monotonic() + within.total_seconds()
        self._die_with_parent = die_with_parent
        self._log = base / "log" / "stdout"

    def start_epmd(self) -> None:
        """Start the name service of Erlang and wait until it answers."""
        port = self.record.ports.epmd
        command = ["epmd", "-port", str(port), "-address", "127.0.0.1"]
        with signals_held():
            found = spawn(
                command, env=self._env, output=self._log, die_with_parent=self._die_with_parent, folder=self._log.parent
            )
            self.record = replace(self.record, epmd=found)
        self.record.write(self._base)
        self._await(port, answers)

    def start_broker(self, programs: Path) -> None:
        """Start RabbitMQ, without waiting."""
        command = [str(programs / "rabbitmq-server")]
        with signals_held():
            found = spawn(
                command, env=self._env, output=self._log, die_with_parent=self._die_with_parent, folder=self._log.parent
            )
            self.record = replace(self.record, broker=found)
        self.record.write(self._base)

    def _spawned(self, command: list[str]) -> ProcessId:
        """Where it crashes Erlang writes its dumps into the folder that it runs in: not that of whoever started it."""
        whole = self._die_with_parent
        return spawn(command, env=self._env, output=self._log, die_with_parent=whole, folder=self._log.parent)

    def await_broker(self) -> None:
        """Wait until RabbitMQ takes connections."""
        self._await(self.record.ports.amqp, lambda _: ready(self.record))

    def _await(self, port: int, there: Callable[[int], bool]) -> None:
        newest = self.record.broker or self.record.epmd
        while not there(port):
            if newest and not newest.alive:
                raise NodeError(f"RabbitMQ ended while it started; {log_tail(self._base)}")
            if time.monotonic() > self._deadline:
                raise NodeError(f"RabbitMQ does not answer on port {port}; {log_tail(self._base)}")
            time.sleep(POLL_S)


def end(record: Record, grace: timedelta) -> None:
    """RabbitMQ first: a node whose epmd is gone starts another one as a daemon."""
    if record.broker:
        record.broker.end(grace)
    if record.epmd:
        record.epmd.end(min(grace, timedelta(seconds=5)))


def ready(record: Record) -> bool:
    """Whether the node takes connections: by AMQP, or by TLS when that is all it speaks."""
    broker, port = record.provisioned_broker, record.ports.amqp
    return broker.answers(port) if broker else answers(port, AMQP_HEADER, CONNECTION_START)


def log_tail(base: Path, lines: int = 15) -> str:
    """What a person needs to see; stdout comes last because it has RabbitMQ's own summary of a failed start."""
    logs = [*(base / "log").glob("*.log"), base / "log" / "stdout"]
    text = "\n".join(path.read_text(errors="replace") for path in logs if path.is_file())
    tail = [line for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join([f"the end of its log (all of it in {base / 'log'}):", *tail])
