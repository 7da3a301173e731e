"""Bringing the nodes of a private cluster up, in an order that ends in one cluster whatever state they were left in."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from fedbus.broker.environment import environment
from fedbus.broker.launch import Launch, end
from fedbus.broker.logins import unwritable
from fedbus.broker.members import ALONE, Members
from fedbus.broker.node import PrivateNode
from fedbus.broker.process import answers
from fedbus.broker.record import Record
from fedbus.errors import NodeError

JOINED = "joined"
"""In a node's folder: it was seen in the cluster, and every queue had a member there."""


class ClusterLaunch:
    """One start of the nodes whose records name no process that lives. NodeError with what to do."""

    def __init__(
        self,
        nodes: Sequence[PrivateNode],
        records: Sequence[Record],
        *,
        programs: Path,
        within: timedelta,
        die_with_parent: bool,
        own_epmd: bool,
        definitions: Path,
    ) -> None:
        """`definitions` is the file of what a new cluster takes in when it is whole."""
        self._nodes = nodes
        self._programs = programs
        self._own_epmd = own_epmd
        self._definitions = definitions
        self._within = within
        self._die_with_parent = die_with_parent
        self._launches = {
            node.seat.name: self._launch(node, record) for node, record in zip(nodes, records, strict=True)
        }
        self._missing = [node for node, record in zip(nodes, records, strict=True) if record.broker is None]
        self._fresh = [node for node in self._missing if not node.has_data]

    def _launch(self, node: PrivateNode, record: Record) -> Launch:
        env = environment(node.base, record.ports, node.seat)
        return Launch(node.base, record, env, within=self._within, die_with_parent=self._die_with_parent)

    def run(self, *, wait: bool) -> None:
        """Start what is missing; without `wait` only what has been in the cluster before."""
        try:
            for node in self._missing:
                node.make_folders()
            first = self._launches[self._nodes[0].seat.name]
            if self._own_epmd and not answers(first.record.ports.epmd):
                first.start_epmd()
            self._start([node for node in self._missing if node.has_data], wait=wait)
            if wait and not self._settled():
                self._join()
                if len(self._fresh) == len(self._nodes):
                    self._nodes[0].ctl("import_definitions", str(self._definitions))
                else:
                    Members(self._nodes).spread()
                for node in self._nodes:
                    (node.base / JOINED).touch()
        except BaseException as exc:  # Ctrl-C while we wait must not leave a node behind either
            self._undo()
            if isinstance(exc, OSError):
                raise unwritable(self._nodes[0].base, exc) from exc
            raise

    def _settled(self) -> bool:
        """Whether every node was seen to be in the cluster, with members of all queues: each question costs seconds."""
        for node in self._fresh:
            (node.base / JOINED).unlink(missing_ok=True)
        return all((node.base / JOINED).exists() for node in self._nodes)

    def _start(self, nodes: Sequence[PrivateNode], *, wait: bool) -> None:
        for node in nodes:
            launch = self._launches[node.seat.name]
            launch.record = replace(launch.record, since=time.time())
            launch.start_broker(self._programs)
        for node in nodes if wait else ():
            had_data = node.has_data and node not in self._fresh
            try:
                self._launches[node.seat.name].await_broker()
            except NodeError as exc:
                if not had_data:
                    raise
                raise NodeError(
                    f"{exc}\nIf its data are damaged and the other nodes have theirs: delete {node.base / 'data'} and "
                    "start again, then it joins them as a new one"
                ) from exc

    def _join(self) -> None:
        """Bring the nodes without data into the cluster, and those that found themselves alone."""
        fresh = list(self._fresh)
        if len(fresh) == len(self._nodes):  # nobody is there to join: node 1 begins
            self._start(fresh[:1], wait=True)
            del fresh[0]
        else:
            for node in fresh:
                Members(self._nodes).forget(node.seat.name)
        self._start(fresh, wait=True)
        for node in self._alone():
            end(replace(self._launches[node.seat.name].record, epmd=None), timedelta(0))
            shutil.rmtree(node.base / "data")
            node.make_folders()
            Members(self._nodes).forget(node.seat.name)
            self._start([node], wait=True)
        if left := self._alone():
            names = " and ".join(str(node.base) for node in left)
            raise NodeError(f"RabbitMQ in {names} does not join the cluster; see its log there, in `log`")

    def _alone(self) -> list[PrivateNode]:
        """Nodes that were never taken in: they know nobody, though another node is no younger. Node 1 begins."""
        views = Members(self._nodes).views()
        alone = [node for node in self._nodes if len(views.get(node.seat.name, ALONE).known) == 1]
        joined = any(len(view.known) > 1 for view in views.values())
        return alone if joined else alone[1:]

    def _undo(self) -> None:
        for node in self._missing:
            record = self._launches[node.seat.name].record
            end(replace(record, epmd=None), timedelta(0))
            with contextlib.suppress(NodeError):  # the disk may be what is wrong
                replace(record, broker=None, since=0.0).write(node.base)
        first = self._launches[self._nodes[0].seat.name].record
        if len(self._missing) == len(self._nodes) and first.epmd:
            first.epmd.end(timedelta(0))
