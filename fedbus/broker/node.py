"""A private RabbitMQ node: own folder, ports, cookie and logins, loopback only, no system service, any user.

What lives here: the files of the node and its life. What may not: AMQP, and what the logins may do (`definitions`).

    base/home/.erlang.cookie   mode 0400              base/rabbitmq.conf, env.conf, enabled_plugins, definitions.json
    base/logins/<name>.url     mode 0600, AMQP URL    base/data/, base/log/
    base/node.json             ports, and pid and start time of the two processes while they run

Start order: lock the folder → refuse when it runs already, or port or disk are full → write files → epmd → wait for it
→ RabbitMQ → wait until it answers an AMQP header (its listeners open last, after the definitions are in).
Of a provisioned federation it runs with that folder's certificates, without passwords and without a plain listener, and
is awaited by a TLS handshake.
Stop order: RabbitMQ (SIGTERM, then SIGKILL) → epmd, because a node whose epmd is gone starts another one as a daemon.

Everything that stop needs is in node.json, so any process of the same user can stop a node whose starter is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from fedbus.broker import enrolment
from fedbus.broker.definitions import VHOST, definitions
from fedbus.broker.environment import Ports, Seat, config_files, environment, find_rabbitmq
from fedbus.broker.launch import EPMD_LIMIT, Launch, end, ready
from fedbus.broker.logins import LoginFolder, unwritable, write_private
from fedbus.broker.process import port_is_free
from fedbus.broker.provisioned import ProvisionedBroker
from fedbus.broker.record import NodeStatus, Record
from fedbus.errors import NodeError

MB = 1_000_000
MIN_FREE_BYTES = 300 * MB
ALARMS = {
    "memory": "memory alarm: its consumers are too slow, or the machine is too small",
    "disk": "disk alarm: free some space on its disk",
}


class PrivateNode:
    """The node in folder `base`, running or not. Every method raises NodeError with what to do.

    `programs` is the folder of rabbitmq-server and rabbitmqctl; without it those of this machine are found.
    """

    def __init__(self, base: Path, *, programs: Path | None = None, seat: Seat | None = None) -> None:
        self.base = base.absolute()
        self.seat = seat or Seat()
        self.logins = LoginFolder(self.base / "logins")
        self._programs = programs

    # -------------------------------------------------------------- life

    def start(
        self,
        *,
        sites: Sequence[str] = (),
        provisioned: Path | None = None,
        port: int | None = None,
        die_with_parent: bool = False,
        ready_within: timedelta | None = timedelta(seconds=90),
    ) -> None:
        """Start the node and return when it answers; about 4 s of one core. Without `ready_within` it is not awaited.

        `sites` are enrolled besides those of earlier starts. Or `provisioned` is the folder of a federation, whose
        broker this then is, at later starts too. The port is `port`, else that of the last start, else the
        one that a federation's kits expect, else a free one. With `die_with_parent` both processes are killed when this
        process ends (main thread only), else they live until `stop`.
        """
        programs = self._programs or find_rabbitmq()
        given = ProvisionedBroker.of_federation(provisioned) if provisioned else None
        with self.locked():
            last = Record.read(self.base)
            broker = given or _broker_of(last)
            if broker and sites:
                raise NodeError("a provisioned federation enrols its sites itself: `fedbus provision add NAME`")
            wish = port or (last.ports.amqp if last else None) or (broker.port if broker else None)
            self.refuse_unfit(last, wish)
            if last and last.epmd:
                last.epmd.end(timedelta(seconds=5))  # what a crashed node left behind
            ports = Ports.choose(wish)
            self.write_cookie()
            if broker is None:
                self.keep_definitions(definitions(self.logins.write(sites, address=ports.address)))
            self.write_configuration(ports, broker)
            record = Record(ports=ports, since=time.time(), provisioned=str(broker.folder) if broker else None)
            self._launch(programs, record, die_with_parent=die_with_parent, ready_within=ready_within)

    def refuse_unfit(self, last: Record | None, port: int | None) -> None:
        """NodeError when it runs already, or its port or its disk is full."""
        if last and last.broker and last.broker.alive:
            raise NodeError(
                f"a node already runs in {self.base} (pid {last.broker.pid}, port {last.ports.amqp}): "
                f"use it (`fedbus {'provision add' if last.provisioned else 'broker add-site'} NAME` makes one more "
                "login), or stop it with `fedbus broker stop`"
            )
        if port and not port_is_free(port):
            raise NodeError(f"port {port} on 127.0.0.1 is in use by another program: choose another with --port")
        free_bytes = shutil.disk_usage(self.base).free
        if free_bytes < MIN_FREE_BYTES:
            raise NodeError(
                f"{self.base} has {free_bytes // MB} MB free and needs {MIN_FREE_BYTES // MB} MB (RabbitMQ stops every "
                "publisher when its disk is nearly full): free it, or choose another with --dir"
            )

    def stop(self, *, grace: timedelta = timedelta(seconds=20)) -> bool:
        """Stop the node from any process; True when it ran. Zero `grace` kills at once (for throw-away nodes)."""
        if not self.base.is_dir():
            return False
        with self.locked():
            record = Record.read(self.base)
            if record is None:
                return False
            ran = bool(record.broker and record.broker.alive)
            end(record, grace)
            replace(record, epmd=None, broker=None, since=0.0).write(self.base)
            return ran

    def status(self) -> NodeStatus:
        record = Record.read(self.base)
        broker = _broker_of(record)
        logins = broker.logins() if broker else self.logins.names()
        if record is None or record.broker is None or not record.broker.alive:
            return NodeStatus(running=False, base=self.base, logins=logins)
        return NodeStatus(
            running=True,
            base=self.base,
            pid=record.broker.pid,
            port=record.ports.amqp,
            since=record.since,
            tls=broker is not None,
            logins=logins,
        )

    def alarms(self) -> tuple[str, ...]:
        """Why the running node takes no messages, in words; empty while it takes them (about 0.5 s)."""
        found = self.ctl("eval", "rabbit_alarm:get_alarms().")
        return tuple(words for sign, words in ALARMS.items() if sign in found)

    # -------------------------------------------------------------- logins and rabbitmqctl

    def url(self, name: str, *, vhost: str = VHOST) -> str:
        """AMQP URL of a login, password included; without login where certificates log in."""
        record = Record.read(self.base)
        if record is not None and record.provisioned:
            return f"amqps://localhost:{record.ports.amqp}/{vhost}"
        return self.logins.url(name, vhost=vhost)

    def add_site(self, name: str) -> Path:
        """Enrol a site on the running node; returns its login file. Does nothing new for a site that is there."""
        with self.locked():
            enrolment.add(self, name, address=self.of_passwords().ports.address)
            return self.logins.path(name)

    def remove_site(self, name: str) -> None:
        """Take a site's login, connections and queue away from the running node."""
        with self.locked():
            enrolment.remove(self, name, address=self.of_passwords().ports.address)

    def rotate(self, name: str) -> Path:
        """Give a login of the running node another password and close its connections; returns its login file."""
        with self.locked():
            enrolment.rotate(self, name, address=self.of_passwords().ports.address)
            return self.logins.path(name)

    def add_vhosts(self, vhosts: Sequence[str]) -> None:
        """More federations on the running node, with the logins it has; about 0.1 s each. For tests."""
        with self.locked():
            record = self._running()
            if broker := record.provisioned_broker:
                content = broker.definitions(vhosts)
            else:
                content = definitions(self.logins.write([], address=record.ports.address), vhosts=vhosts)
            self.import_definitions("vhosts.json", content)

    def import_definitions(self, file: str, content: dict[str, Any]) -> None:
        """Let the running broker take definitions in; they stay in `file`."""
        write_private(self.base / file, json.dumps(content))
        self.ctl("import_definitions", str(self.base / file))

    def keep_definitions(self, content: dict[str, Any]) -> None:
        """What the broker takes in when it starts."""
        write_private(self.base / "definitions.json", json.dumps(content))

    def _running(self) -> Record:
        record = Record.read(self.base)
        if record is None or record.broker is None or not record.broker.alive:
            raise NodeError(
                f"no node runs in {self.base}, and only a running one takes this: start it with `fedbus broker start`, "
                "then give this command again"
            )
        return record

    def of_passwords(self) -> Record:
        """The record of the node, which runs and where passwords log in."""
        record = self._running()
        if record.provisioned:
            raise NodeError(
                f"the node in {self.base} runs a provisioned federation, where certificates log in: use `fedbus "
                "provision add`, `revoke` or `renew`"
            )
        return record

    def ctl(self, *arguments: str, program: str = "rabbitmqctl", timeout: timedelta = timedelta(seconds=60)) -> str:
        """Run rabbitmqctl, or another program of RabbitMQ, on this node and return what it prints (about 0.5 s)."""
        record = Record.read(self.base)
        if record is None:
            raise NodeError(f"no node was ever started in {self.base}")
        command = [str((self._programs or find_rabbitmq()) / program), "-q", *arguments]
        try:
            done = subprocess.run(
                command,
                env=environment(self.base, record.ports, self.seat),
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=timeout.total_seconds(),
            )
        except subprocess.TimeoutExpired as exc:
            raise NodeError(f"{program} {arguments[0]} gave no answer in {timeout}: is the node overloaded?") from exc
        if done.returncode:
            raise NodeError(f"{program} {arguments[0]} failed: {(done.stdout + done.stderr).strip()}")
        return done.stdout

    # -------------------------------------------------------------- files

    def answers(self) -> bool:
        """Whether it takes connections now."""
        record = Record.read(self.base)
        return record is not None and ready(record)

    @property
    def has_data(self) -> bool:
        """Whether it has been started before."""
        return (self.base / "data" / self.seat.name).is_dir()

    def make_base(self) -> None:
        """Make its folder, for its owner alone."""
        try:
            self.base.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise unwritable(self.base, exc) from exc

    def make_folders(self) -> None:
        """Make what RabbitMQ writes into."""
        for name in ("data", "log"):
            (self.base / name).mkdir(exist_ok=True)

    def write_cookie(self) -> None:
        """Make the secret of its Erlang, and of the nodes that share it."""
        cookie = self.base / "home" / ".erlang.cookie"
        if not cookie.exists():
            write_private(cookie, secrets.token_hex(16), 0o400)

    def write_configuration(
        self,
        ports: Ports,
        broker: ProvisionedBroker | None,
        *,
        peers: Sequence[str] = (),
        loads: Path | None = None,
    ) -> None:
        """Write what RabbitMQ reads when it starts; in a cluster it joins one of `peers` and takes `loads` in."""
        files = config_files(self.base, ports) if broker is None else broker.config_files(ports.amqp)
        files["rabbitmq.conf"] = self.seat.configured(files["rabbitmq.conf"], peers, loads)
        for name, text in files.items():
            write_private(self.base / name, text)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One start or stop at a time; the kernel frees the lock when its holder dies."""
        self.make_base()
        try:
            lock = open(self.base / "lock", "w")  # noqa: SIM115 - closed below, whatever happens inside
        except OSError as exc:
            raise unwritable(self.base, exc) from exc
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # -------------------------------------------------------------- processes

    def _launch(self, programs: Path, record: Record, *, die_with_parent: bool, ready_within: timedelta | None) -> None:
        within, env = ready_within or EPMD_LIMIT, environment(self.base, record.ports, self.seat)
        launch = Launch(self.base, record, env, within=within, die_with_parent=die_with_parent)
        try:
            self.make_folders()
            launch.start_epmd()
            launch.start_broker(programs)
            if ready_within is not None:
                launch.await_broker()
        except BaseException as exc:  # Ctrl-C while we wait must not leave a node behind either
            end(launch.record, timedelta(0))
            with contextlib.suppress(NodeError):  # the disk may be what is wrong
                replace(record, since=0.0).write(self.base)
            if isinstance(exc, OSError):
                raise unwritable(self.base, exc) from exc
            raise


def _broker_of(record: Record | None) -> ProvisionedBroker | None:
    return record.provisioned_broker if record else None
