"""The nodes of a broker that is a cluster, each of which can be killed, stopped, frozen and cut off from the others."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

from fedbus.bench.chaos.node_net import NodeNet
from fedbus.bench.chaos.plan import Act
from fedbus.bench.chaos.proxy import Backstage
from fedbus.broker.cluster import PrivateCluster

NODES = ("node-1", "node-2", "node-3")
STOPS_WITHIN = timedelta(seconds=3)


class Nodes:
    """Three nodes with links between them. `begin` and `heal` take a word of NODES."""

    def __init__(self, backstage: Backstage) -> None:
        self._names = ("fedbus", "fedbus2", "fedbus3")
        self._net = NodeNet(backstage, self._names)
        self._down: set[str] = set()
        self._backstage = backstage
        self._asked: Future[tuple[int, ...]] | None = None

    def cluster(self, base: Path) -> PrivateCluster:
        """The cluster in this folder, whose nodes reach each other through the links."""
        self._cluster = PrivateCluster(base, size=len(NODES), name_services=self._net.ports)
        return self._cluster

    @property
    def whole(self) -> bool:
        """Whether every node takes connections: one that starts or sees no majority does not."""
        return all(node.answers() for node in self._cluster.nodes)

    def ended(self) -> list[str]:
        """Nodes that do not run, though nobody has ended them."""
        return [
            name
            for number, name in enumerate(NODES, 1)
            if name not in self._down and self._cluster.process(number) is None
        ]

    def begin(self, act: Act, victim: str) -> None:
        """Do an act of `plan.ON_NODE`."""
        number, name = self._place(victim)
        process = self._cluster.process(number)
        match act:
            case Act.KILL_NODE:
                self._down.add(victim)
                self._cluster.stop_node(number, grace=timedelta(0))
            case Act.STOP_NODE if process:
                self._down.add(victim)
                process.ask_to_end()
            case Act.FREEZE_NODE if process:
                process.send(signal.SIGSTOP)
            case Act.CUT_NODE:
                self._net.cut(name)
            case Act.SILENCE_NODE:
                self._net.silence(name)

    def heal(self, act: Act, victim: str) -> None:
        """Undo it. Main thread only."""
        number, name = self._place(victim)
        process = self._cluster.process(number)
        match act:
            case Act.KILL_NODE | Act.STOP_NODE:
                self._cluster.stop_node(number, grace=STOPS_WITHIN)
                self._cluster.start(die_with_parent=True, ready_within=None)
                self._down.discard(victim)
            case Act.FREEZE_NODE if process:
                process.send(signal.SIGCONT)
            case Act.CUT_NODE:
                self._net.mend(name)
            case Act.SILENCE_NODE:
                self._net.resume(name)

    def mend(self) -> bool:
        """What an operator does when `fedbus broker status` says so: a node that was away too long is started again.

        False while the nodes are still asked, which takes seconds: call it again. Main thread only.
        """
        if self._asked is None:
            self._asked = self._backstage.begin(asyncio.to_thread(self._cluster.out_of_step))
        if not self._asked.done():
            return False
        behind, self._asked = self._asked.result(), None
        for number in behind:
            self._down.add(NODES[number - 1])
            self._cluster.stop_node(number, grace=STOPS_WITHIN)
            self._cluster.start(die_with_parent=True, ready_within=None)
            self._down.discard(NODES[number - 1])
        return True

    def _place(self, victim: str) -> tuple[int, str]:
        index = NODES.index(victim)
        return index + 1, self._names[index]
