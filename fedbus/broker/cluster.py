"""A private RabbitMQ of several nodes on this machine: a cluster, of which any one node may be away.

    base/                 node 1, as a node that stands alone; its cookie, logins and definitions are everybody's
    base/nodes/N/         the others: own ports, data and log
    base/cluster.json     how many there are

All listen on loopback alone and are found by one epmd. A queue has a member on every node, so a cluster of three goes
on while two of them see each other; a node that sees no majority pauses (`pause_minority`) and serves nobody.

Start: whatever does not run is started, the nodes with data first and at once (the one that stopped last has what the
others wait for), then those without, which join them; a node that found itself alone joins now; queues that were made
before a node came get a member there. Where all run, nodes that are out of step with the others are started again.
Stop: all at once, then epmd.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from fedbus.broker import enrolment
from fedbus.broker.cluster_launch import ClusterLaunch
from fedbus.broker.definitions import VHOST, definitions
from fedbus.broker.environment import NODE_NAME, Ports, Seat, find_rabbitmq
from fedbus.broker.launch import EPMD_LIMIT
from fedbus.broker.logins import LoginFolder, write_private
from fedbus.broker.members import Members
from fedbus.broker.node import PrivateNode
from fedbus.broker.process import ProcessId
from fedbus.broker.provisioned import ProvisionedBroker
from fedbus.broker.record import NodeStatus, Record
from fedbus.errors import NodeError

FILE = "cluster.json"
# What node 1 of a new cluster begins with: queues come when all of it is there, and then have members everywhere.
FOUNDING = "founding.json"
SIZES = (1, 3, 5, 7)
# Three nodes that start at once on two busy cores.
READY_WITHIN = timedelta(seconds=300)
CONF = """
cluster_partition_handling = pause_minority
# Before a node has joined it would make the login `guest`.
default_pass = {secret}
"""


def private_broker(base: Path, *, nodes: int | None = None) -> PrivateNode | PrivateCluster:
    """What runs in this folder, or will: a node alone, or a cluster of `nodes`; None for what is there.

    Raises NodeError when the folder holds more nodes than that, or so many make no cluster.
    """
    there = _size(base)
    if nodes is not None and nodes not in SIZES:
        raise NodeError(f"{nodes} nodes make no useful cluster, for half of them is no majority: {SIZES[1:]} do, or 1")
    if nodes is not None and nodes < there:
        raise NodeError(
            f"{base} holds a cluster of {there} nodes, which cannot become {nodes}: its queues have members on all of "
            "them. Choose another folder with --dir"
        )
    size = nodes or there
    return PrivateNode(base) if size == 1 else PrivateCluster(base, size=size)


class PrivateCluster:
    """The cluster in folder `base`, running or not. Every method raises NodeError with what to do.

    `name_services` are ports where somebody else tells each node where the others are, instead of one epmd.
    """

    def __init__(
        self, base: Path, *, size: int, programs: Path | None = None, name_services: Sequence[int] = ()
    ) -> None:
        self.base = base.absolute()
        self.logins = LoginFolder(self.base / "logins")
        self._programs = programs
        self._name_services = name_services
        self.nodes = tuple(self._node(number) for number in range(1, size + 1))

    def _node(self, number: int) -> PrivateNode:
        name = NODE_NAME if number == 1 else NODE_NAME.replace("@", f"{number}@")
        base = self.base if number == 1 else self.base / "nodes" / str(number)
        seat = Seat(name=name, home=self.base, conf=CONF.format(secret=secrets.token_hex(16)))
        return PrivateNode(base, programs=self._programs, seat=seat)

    # -------------------------------------------------------------- life

    def start(
        self,
        *,
        sites: Sequence[str] = (),
        provisioned: Path | None = None,
        port: int | None = None,
        die_with_parent: bool = False,
        ready_within: timedelta | None = READY_WITHIN,
    ) -> None:
        """Start every node that does not run, and return when all of them answer and are one cluster.

        As `PrivateNode.start`; `port` is that of node 1. Without `ready_within` nothing is awaited: only for nodes that
        have been a cluster before.
        """
        programs = self._programs or find_rabbitmq()
        given = ProvisionedBroker.of_federation(provisioned) if provisioned else None
        with self.nodes[0].locked():
            last = self._records()
            broker = given or next((r.provisioned_broker for r in last if r), None)
            if broker and sites:
                raise NodeError("a provisioned federation enrols its sites itself: `fedbus provision add NAME`")
            if all(_alive(record) for record in last):
                if not (behind := self.out_of_step()):
                    raise NodeError(f"all {len(self.nodes)} nodes of the cluster in {self.base} run already")
                for number in behind:
                    self._end_node(number, timedelta(seconds=20))
                last = self._records()
            records = self._placed(last, broker, port)
            whole = self._write_files(records, sites, broker)
            launch = ClusterLaunch(
                self.nodes,
                records,
                programs=programs,
                within=ready_within or EPMD_LIMIT,
                die_with_parent=die_with_parent,
                own_epmd=not self._name_services,
                definitions=whole,
            )
            launch.run(wait=ready_within is not None)

    def _placed(
        self, last: Sequence[Record | None], broker: ProvisionedBroker | None, port: int | None
    ) -> list[Record]:
        """Where each node listens: as before, else where the kits expect it, else at a free port."""
        expected = broker.ports if broker else ()
        wishes = [port or (expected[0] if expected else None), *expected[1:]]
        epmd = last[0].ports.epmd if last[0] else None
        records: list[Record] = []
        for index, node in enumerate(self.nodes):
            before = last[index]
            if before and _alive(before):
                records.append(before)
                continue
            wish = (port if index == 0 else None) or (before.ports.amqp if before else None)
            wish = wish or (wishes[index] if index < len(wishes) else None)
            node.make_base()
            node.refuse_unfit(before, wish)
            own = self._name_services[index] if self._name_services else epmd
            ports = Ports.choose(wish, epmd=own)
            if index:
                ports = self._apart(ports, records, wish, own)
            epmd = epmd or ports.epmd
            records.append(
                Record(
                    ports=ports,
                    provisioned=str(broker.folder) if broker else None,
                    epmd=before.epmd if before and before.epmd and before.epmd.alive else None,
                )
            )
        return records

    @staticmethod
    def _apart(ports: Ports, others: Sequence[Record], wish: int | None, epmd: int | None) -> Ports:
        """Ports that no other node of this start has been given: nobody listens at those yet."""
        taken = {port for record in others for port in record.ports.all}
        while taken & (ports.all - {epmd}):
            ports = Ports.choose(wish, epmd=epmd)
        return ports

    def stop(self, *, grace: timedelta = timedelta(seconds=20)) -> bool:
        """Stop all nodes from any process; True when one ran. Zero `grace` kills at once."""
        if not self.base.is_dir():
            return False
        with self.nodes[0].locked():
            records = [record for record in self._records() if record]
            ran = any(map(_alive, records))
            if grace:
                for broker in _brokers(records):
                    broker.ask_to_end()  # all at once: the last one alone would pause first
            for broker in _brokers(records):
                broker.end(grace)
            for record in records:
                if record.epmd:
                    record.epmd.end(min(grace, timedelta(seconds=5)))
            for node, known in zip(self.nodes, self._records(), strict=True):
                if known:
                    replace(known, epmd=None, broker=None, since=0.0).write(node.base)
            return ran

    def stop_node(self, number: int, *, grace: timedelta = timedelta(seconds=20)) -> bool:
        """Stop one node, counted from 1; the others go on. `start` starts it again."""
        if not 1 <= number <= len(self.nodes):
            raise NodeError(f"the cluster in {self.base} has nodes 1 to {len(self.nodes)}, not {number}")
        with self.nodes[0].locked():
            return self._end_node(number, grace)

    def _end_node(self, number: int, grace: timedelta) -> bool:
        node = self.nodes[number - 1]
        record = Record.read(node.base)
        if record is None or record.broker is None or not record.broker.alive:
            return False
        record.broker.end(grace)
        replace(record, broker=None, since=0.0).write(node.base)
        return True

    def process(self, number: int) -> ProcessId | None:
        """RabbitMQ's process of one node, counted from 1; None when it does not run."""
        record = Record.read(self.nodes[number - 1].base)
        return record.broker if record and _alive(record) else None

    def status(self) -> NodeStatus:
        members = tuple(node.status() for node in self.nodes)
        best = next((member for member in members if member.running), members[0])
        return replace(best, base=self.base, logins=members[0].logins, members=members)

    def apart(self) -> tuple[int, ...]:
        """Numbers of nodes that run and are not with the majority of the cluster (0.5 s)."""
        running = [n for n, node in enumerate(self.nodes, 1) if node.status().running]
        together = Members(self.nodes).together()
        if 2 * len(together) <= len(self.nodes):
            return tuple(running)
        return tuple(n for n in running if self.nodes[n - 1].seat.name not in together)

    def out_of_step(self) -> tuple[int, ...]:
        """Numbers of nodes that need a restart, see `Members.out_of_step`; `start` restarts them (0.5 s)."""
        behind = Members(self.nodes).out_of_step()
        return tuple(n for n, node in enumerate(self.nodes, 1) if node in behind)

    def alarms(self) -> tuple[str, ...]:
        """Why the cluster takes no messages, in words; empty while it takes them (about 1 s).

        Empty too where no node sees a majority: `apart` tells that, and then nobody knows.
        """
        together = Members(self.nodes).together()
        return next((node.alarms() for node in self.nodes if node.seat.name in together), ())

    # -------------------------------------------------------------- logins and rabbitmqctl

    @property
    def address(self) -> str:
        """`host:port` of all nodes, with commas between."""
        return ",".join(record.ports.address for record in self._records() if record)

    def url(self, name: str, **vhost: str) -> str:
        """AMQP URL of a login with all nodes, password included; without login where certificates log in."""
        record = Record.read(self.base)
        if record is None or record.provisioned is None:
            return self.logins.url(name, **vhost)
        ports = [record.ports.amqp for record in self._records() if record]
        return f"amqps://{','.join(f'localhost:{port}' for port in ports)}/{vhost.get('vhost', 'fedbus')}"

    def add_site(self, name: str) -> Path:
        """As `PrivateNode.add_site`, while any node runs."""
        with self._of_passwords():
            enrolment.add(self, name, address=self.address)
            return self.logins.path(name)

    def remove_site(self, name: str) -> None:
        """As `PrivateNode.remove_site`, while any node runs."""
        with self._of_passwords():
            enrolment.remove(self, name, address=self.address)

    def rotate(self, name: str) -> Path:
        """As `PrivateNode.rotate`, while any node runs."""
        with self._of_passwords():
            enrolment.rotate(self, name, address=self.address)
            return self.logins.path(name)

    def import_definitions(self, file: str, content: dict[str, Any]) -> None:
        """Let the running cluster take definitions in; they stay in `file`."""
        write_private(self.base / file, json.dumps(content))
        self.ctl("import_definitions", str(self.base / file))

    def keep_definitions(self, content: dict[str, Any]) -> None:
        """What node 1 takes in when it starts."""
        self.nodes[0].keep_definitions(content)

    def add_vhosts(self, vhosts: Sequence[str]) -> None:
        """As `PrivateNode.add_vhosts`."""
        self._running().add_vhosts(vhosts)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on a node that runs, and return what it prints (about 0.5 s)."""
        return self._running().ctl(*arguments)

    # -------------------------------------------------------------- what it is made of

    @contextlib.contextmanager
    def _of_passwords(self) -> Iterator[None]:
        with self.nodes[0].locked():
            self._running().of_passwords()
            yield

    def _running(self) -> PrivateNode:
        """A node that runs, one of the majority when it is known."""
        running = [node for node in self.nodes if node.status().running]
        if not running:
            raise NodeError(f"no node of the cluster in {self.base} runs: start it with `fedbus broker start`")
        together: Collection[str] = Members(running).together() if len(running) > 1 else ()
        return next((node for node in running if node.seat.name in together), running[0])

    def _records(self) -> list[Record | None]:
        return [Record.read(node.base) for node in self.nodes]

    def _write_files(self, records: Sequence[Record], sites: Sequence[str], broker: ProvisionedBroker | None) -> Path:
        """Write what the nodes read; returns the file of their definitions."""
        write_private(self.base / FILE, json.dumps({"nodes": len(self.nodes)}))
        self.nodes[0].write_cookie()
        if broker is None:
            address = ",".join(record.ports.address for record in records)
            content = definitions(self.logins.write(sites, address=address))
            self.keep_definitions(content)
            whole = self.base / "definitions.json"
        else:
            content, whole = broker.definitions((VHOST,)), broker.folder / "definitions.json"
        with_data = [node for node in self.nodes if node.has_data]
        if not with_data:
            founding = {kind: entries for kind, entries in content.items() if kind not in ("queues", "bindings")}
            write_private(self.base / FOUNDING, json.dumps(founding))
        loads = whole if with_data else self.base / FOUNDING
        for node, record in zip(self.nodes, records, strict=True):
            peers = [peer.seat.name for peer in with_data or self.nodes[:1] if peer is not node]
            first = node is self.nodes[0]
            node.write_configuration(record.ports, broker, peers=peers, loads=loads if first else None)
        return whole


def _size(base: Path) -> int:
    """How many nodes the folder holds: 1 where there is no cluster."""
    try:
        found = json.loads((base / FILE).read_text())["nodes"]
    except FileNotFoundError:
        return 1
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise NodeError(
            f'{base / FILE} cannot be read ({exc}): write {{"nodes": 3}} into it, or how many there are'
        ) from exc
    if found not in SIZES:
        raise NodeError(f"{base / FILE} says {str(found)[:20]!r} nodes: expected one of {SIZES}")
    return int(found)


def _alive(record: Record | None) -> bool:
    return bool(record and record.broker and record.broker.alive)


def _brokers(records: Sequence[Record]) -> list[ProcessId]:
    return [record.broker for record in records if record.broker is not None]
