"""Who is on stage: a broker, an aggregator and sites, each on a machine of its own behind a link of its own.

A daemon that ends though nobody killed it is noted with its last words and started again, as a service manager would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fedbus.bench.chaos import machine
from fedbus.bench.chaos.machine import Machine
from fedbus.bench.chaos.nodes import Nodes
from fedbus.bench.chaos.plan import AGGREGATOR, BROKER
from fedbus.bench.chaos.proxy import Backstage, Proxy
from fedbus.broker.process import free_port
from fedbus.bus.url import BrokerUrl
from fedbus.errors import FedbusError
from fedbus.local.federation import Daemon, LocalFederation

Settings = Mapping[str, object]

# The lease is three of these intervals.
STATUS_INTERVAL_S = 0.5
# What a run needs of every daemon: bodies that stay for the replay, checkpoints in between, one torch thread each.
AGGREGATOR_SETTINGS: Settings = {"checkpoint_interval_s": 1.0, "keep_updates": True, "log_level": "debug"}
SITE_SETTINGS: Settings = {"status_interval_s": STATUS_INTERVAL_S, "device": "cpu", "log_level": "debug"}
LAST_LINES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """A daemon, or the broker, that ended by itself; `at` in seconds since the epoch."""

    at: float
    name: str
    exit_code: int | None
    last_words: str


class Stage:
    """The daemons of one federation whose broker is up. `paces_s` says how long each site pauses in each training.

    `nodes` are those of the broker when it is a cluster.
    """

    def __init__(
        self,
        federation: LocalFederation,
        backstage: Backstage,
        paces_s: Mapping[str, float],
        nodes: Nodes | None = None,
    ) -> None:
        self.federation = federation
        self.surprises: list[Surprise] = []
        self._backstage = backstage
        self._paces_s = paces_s
        self._daemons: dict[str, Daemon] = {}
        self._broker_is_up = True
        # not any free port: while the link is down the kernel would give it to somebody's outgoing connection
        self.nodes = nodes
        self._links = {
            name: [backstage.link(place, free_port()) for place in places_of_broker(federation, name)]
            for name in (AGGREGATOR, *paces_s)
        }
        folder = federation.folder / "machines"
        folder.mkdir()
        self._machines = {name: Machine(folder / name) for name in (AGGREGATOR, *paces_s)}
        federation.under = self._on_machine

    # -------------------------------------------------------------- daemons

    def start(self, name: str, **settings: object) -> Daemon:
        """Start a daemon, again if need be."""
        places = [("127.0.0.1", link.port) for link in self._links[name]]
        url = BrokerUrl.parse(self.federation.url(name)).at(places).with_password()
        if name == AGGREGATOR:
            daemon = self.federation.start_aggregator(broker_url=url, **AGGREGATOR_SETTINGS, **settings)
        else:
            data = make_data(self.federation.folder, name)
            own = {**SITE_SETTINGS, "step_delay_s": self._paces_s[name], **settings}
            daemon = self.federation.start_site(name, data, broker_url=url, **own)
        self._daemons[name] = daemon
        return daemon

    def start_again(self, name: str) -> None:
        """Start one that is down; a machine that is late may have done it already."""
        if name not in self._daemons:
            self.start(name)

    def kill(self, name: str) -> None:
        """SIGKILL; one that is down stays down."""
        daemon = self._daemons.pop(name, None)
        if daemon is not None:
            daemon.stop(timedelta(0))

    def kill_broker(self) -> None:
        """SIGKILL to the broker, to all its nodes at once."""
        self._broker_is_up = False
        self.federation.kill_broker()

    def start_broker(self) -> None:
        """Start the broker again, without waiting until it answers."""
        self.federation.start_broker()
        self._broker_is_up = True

    @property
    def of_nodes(self) -> Nodes:
        """The broker's nodes; FedbusError when it is one node alone."""
        if self.nodes is None:
            raise FedbusError("this broker is no cluster")
        return self.nodes

    @property
    def broker_is_whole(self) -> bool:
        """Whether every node of a cluster serves; true for one node alone."""
        return self.nodes is None or self.nodes.whole

    def daemon(self, name: str) -> Daemon | None:
        """None while it is killed."""
        return self._daemons.get(name)

    def look_after(self) -> None:
        """Note who ended unasked, and start it again."""
        for name, daemon in list(self._daemons.items()):
            if not daemon.alive:
                words = "\n".join(daemon.last_words().splitlines()[-LAST_LINES:])
                self.surprises.append(Surprise(at=time.time(), name=name, exit_code=daemon.exit_code, last_words=words))
                self.start(name)
        node = self.federation.node
        if self.nodes is not None:
            if self._broker_is_up and (ended := self.nodes.ended()):
                where = f"its log is in {node.base}"
                self.surprises += [Surprise(at=time.time(), name=e, exit_code=None, last_words=where) for e in ended]
                self.start_broker()
        elif self._broker_is_up and not node.status().running:
            where = f"its log is in {node.base / 'log'}"
            self.surprises.append(Surprise(at=time.time(), name=BROKER, exit_code=None, last_words=where))
            self.start_broker()

    # -------------------------------------------------------------- machines

    def machine(self, name: str) -> Machine:
        """Where a daemon runs, and the next one of its name."""
        return self._machines[name]

    def _on_machine(self, name: str) -> list[str]:
        return [machine.__name__, str(self._machines[name].path), str(self.federation.state_dir(name))]

    # -------------------------------------------------------------- links

    def on_link(self, name: str, change: Callable[[Proxy], None]) -> None:
        """Do something to a daemon's link, to each node of the broker, in the event loop that it lives in."""

        async def in_loop() -> None:
            for link in self._links[name]:
                change(link)

        self._backstage.wait(in_loop())

    def link_up(self, name: str) -> None:
        """Take connections again."""
        for link in self._links[name]:
            self._backstage.wait(link.up(link.port))


def places_of_broker(federation: LocalFederation, login: str) -> list[tuple[str, int]]:
    """Host and port of each node of the broker."""
    return [(place.host, place.port) for place in BrokerUrl.parse(federation.url(login)).places]


def make_data(folder: Path, site: str) -> Path:
    """A data folder that is not empty: the task `synthetic` needs no more."""
    data = folder / "data" / site
    data.mkdir(parents=True, exist_ok=True)
    (data / "none").touch()
    return data
