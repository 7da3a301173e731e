"""A federation on one machine: a private broker, an aggregator and sites, each an operating system process of its own.

Used by the demo, the benchmarks and the tests. Everything lies in one folder: state, logins, and one log file of JSON
lines per daemon. All processes die with this one, whatever ends it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fedbus.broker.cluster import PrivateCluster
from fedbus.broker.node import PrivateNode
from fedbus.broker.process import ProcessId, free_port, signals_held, spawn
from fedbus.broker.provisioned import node_folder
from fedbus.errors import FedbusError
from fedbus.local.provisioned import HOST, Allowed, kit_of, provision_here
from fedbus.provision.federation_file import BrokerPart

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

T = TypeVar("T")

POLL_S = 0.02
GRACE = timedelta(seconds=10)
PATIENCE = timedelta(seconds=120)
"""With what hangs: a busy machine is no reason to give up."""


class Daemon:
    """One daemon as a process; `log` is its file of JSON lines (what else it prints is kept there too)."""

    def __init__(self, name: str, command: list[str], *, env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._exit_code: int | None = None
        self.process: ProcessId = spawn(
            [sys.executable, "-m", *command],
            env={**_inherited(), "FEDBUS_LOG_FORMAT": "json", **env},
            output=log,
            die_with_parent=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.exit_code is None and self.process.alive

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the number of the signal that ended it."""
        if self._exit_code is None:
            with suppress(ChildProcessError):  # WNOWAIT: whoever waits for the process finds it still
                ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is not None:
                    status = ended.si_status
                    self._exit_code = status if ended.si_code == os.CLD_EXITED else -status
        return self._exit_code

    def events(self) -> Iterator[dict[str, Any]]:
        """Its log lines so far; lines that are no JSON are left out."""
        if not self.log.exists():
            return
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record

    def wait_for(self, event: str, *, within: timedelta = PATIENCE, **facts: object) -> dict[str, Any]:
        """The first log line of this event with these facts; FedbusError with the log's end when it does not come."""

        def found() -> dict[str, Any] | None:
            lines = (e for e in self.events() if e.get("event") == event)
            return next((e for e in lines if facts.items() <= e.items()), None)

        return wait_until(found, within=within, what=f"{self.name}: {event} {facts or ''}", or_else=self.last_words)

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "(no log)"

    def stop(self, grace: timedelta = GRACE) -> None:
        """SIGTERM, then SIGKILL; zero grace kills at once."""
        self.process.end(grace)

    def freeze(self) -> None:
        """SIGSTOP: it lives and does nothing until `thaw`."""
        self.process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send(signal.SIGCONT)

    def trainers(self) -> list[ProcessId]:
        """The trainers of a site: each is the child of a guardian, which is a child of the daemon."""
        guardians = _children(self.pid)
        return [trainer for guardian in guardians for trainer in _children(guardian.pid)[:1]]


def _children(pid: int) -> list[ProcessId]:
    """The live children of a process, oldest first."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [child for number in text.split() if (child := ProcessId.of(int(number)))]


def _inherited() -> dict[str, str]:
    """The environment without settings of fedbus: those of the person at this terminal are for other daemons."""
    return {name: value for name, value in os.environ.items() if not name.startswith("FEDBUS_")}


def wait_until(
    found: Callable[[], T | None], *, within: timedelta, what: str, or_else: Callable[[], str] = lambda: ""
) -> T:
    """Ask `found` until it gives something true; FedbusError naming `what` when it does not in time."""
    deadline = time.monotonic() + within.total_seconds()
    while not (value := found()):
        if time.monotonic() >= deadline:
            raise FedbusError(f"waited {within.total_seconds():.0f} s in vain for {what}\n{or_else()}")
        time.sleep(POLL_S)
    return value


class LocalFederation:
    """Start what is needed, in any order; leaving the context stops everything. Main thread only.

    `url_for(login)` gives the broker's URLs, `kit_for(login)` the folder of each participant's kit, None where a
    password logs in. Without them a private broker with these `sites` is started in the folder. With `tls` that is the
    broker of a federation which is provisioned there, and certificates log in: by task, what its sites allow a job to
    set; the broker's certificate is also for the address `host`.
    With `cluster` the broker is what it makes in a folder.
    `under(name)` is what runs a daemon, as arguments of `python -m`: nothing, unless somebody sets it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sites: tuple[str, ...] = (),
        url_for: Callable[[str], str] | None = None,
        kit_for: Callable[[str], Path | None] = lambda login: None,
        tls: Allowed | None = None,
        host: str = HOST,
        cluster: Callable[[Path], PrivateCluster] | None = None,
    ) -> None:
        self.folder = folder
        self._sites = sites
        self._url_for = url_for
        self._tls = tls
        self._host = host
        self._private = cluster or PrivateNode
        self.kit = kit_for
        self._node: PrivateNode | PrivateCluster | None = None
        self.daemons: list[Daemon] = []
        self.under: Callable[[str], list[str]] = lambda name: []

    def __enter__(self) -> Self:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        if self._url_for is None:
            self._node = self._started_node()
        return self

    def _started_node(self) -> PrivateNode | PrivateCluster:
        if self._tls is None:
            node = self._private(self.folder / "broker")
            node.start(sites=self._sites, die_with_parent=True)
        else:
            at = BrokerPart(host=self._host, port=free_port())
            provision_here(self.federation, name="local", sites=self._sites, broker=at, allowed=self._tls)
            self.kit = self._own_kit
            node = self._private(node_folder(self.federation))
            node.start(provisioned=self.federation, die_with_parent=True)
        return node

    def _own_kit(self, login: str) -> Path:
        """What a participant has on its own machine; the aggregator's kit is where the operator changes it."""
        made = kit_of(self.federation, login)
        own = made if login == "aggregator" else self.folder / "kits" / login
        if not own.exists():
            shutil.copytree(made, own)
        return own

    def identity(self, login: str) -> Identity | None:
        """Who logs in by a kit; None where a password does."""
        kit = self.kit(login)
        if kit is None:
            return None
        from fedbus.trust.identity import Identity  # loads cryptography

        return Identity.load(kit)

    @property
    def federation(self) -> Path:
        """The folder of the provisioned federation, with `tls`: `fedbus provision` commands take it as `--dir`."""
        return self.folder / "federation"

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        grace = GRACE if kind is None else timedelta(seconds=1)
        for daemon in self.daemons:
            daemon.process.ask_to_end()  # all at once: each takes a second or two
            daemon.thaw()  # a frozen one could not obey
        for daemon in self.daemons:
            if not daemon.process.wait(grace):
                daemon.stop(timedelta(0))
        if self._node is not None:
            self._node.stop(grace=timedelta(0))

    @property
    def own_node(self) -> PrivateNode | PrivateCluster | None:
        """The private broker; None when the federation uses another one."""
        return self._node

    @property
    def node(self) -> PrivateNode | PrivateCluster:
        """The private broker; FedbusError when the federation uses another one."""
        if self._node is None:
            raise FedbusError("this federation does not run its own broker")
        return self._node

    def url(self, login: str) -> str:
        """The broker URL of a login, password included."""
        return self._url_for(login) if self._url_for is not None else self.node.url(login)

    def state_dir(self, name: str) -> Path:
        """Where a daemon keeps what must outlive it."""
        return self.folder / name if name == "aggregator" else self.folder / "sites" / name

    def start_aggregator(self, **env: object) -> Daemon:
        """Start an aggregator; `env` are settings such as `checkpoint_interval_s=1`."""
        settings = {"broker_url": self.url("aggregator"), "state_dir": self.state_dir("aggregator")} | env
        return self._start("aggregator", "aggregator", settings)

    def start_site(self, name: str, data: Path, **env: object) -> Daemon:
        """Start a site daemon; `env` are settings such as `slowdown=10`."""
        settings = {
            "broker_url": self.url(name),
            "site_name": name,
            "site_data": data,
            "site_state_dir": self.state_dir(name),
            "max_jobs": 8,
        }
        return self._start(name, "site", settings | env)

    def start_page(self, **env: object) -> Daemon:
        """Start a status page of its own, on a free port; it prints its address first."""
        return self._start("submitter", "web", {"broker_url": self.url("submitter"), "web_port": 0} | env)

    def kill_broker(self) -> None:
        """SIGKILL to the private broker; its files stay."""
        self.node.stop(grace=timedelta(0))

    def start_broker(self) -> None:
        """Start the private broker again, on its old port, and do not wait until it answers. Main thread only."""
        self.node.start(die_with_parent=True, ready_within=None)

    def _start(self, name: str, command: str, settings: Mapping[str, object]) -> Daemon:
        kit = self.kit(name)
        settings = dict(settings) | ({} if kit is None else {"kit": kit})
        env = {f"FEDBUS_{key.upper()}": str(value) for key, value in settings.items()}
        count = sum(d.name == name for d in self.daemons)
        log = self.folder / "logs" / (f"{name}.{count + 1}.log" if count else f"{name}.log")
        with signals_held():
            daemon = Daemon(name, [*self.under(name), "fedbus", command], env=env, log=log)
            self.daemons.append(daemon)
        return daemon
