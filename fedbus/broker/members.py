"""Who is in a cluster of private nodes, and where its queues have members: asked of the nodes, mended where one is out.

A node knows its cluster by its own data. One that was never taken in knows itself alone.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from fedbus.broker.node import PrivateNode
from fedbus.errors import NodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A cluster as one node sees it, by their names; `split`: who was away and has not come together with it again."""

    known: frozenset[str]
    running: frozenset[str]
    split: frozenset[str] = frozenset()


LIST_TRIES, LIST_AGAIN_S = 20, 1.0
ALONE = View(known=frozenset(), running=frozenset())


class Members:
    """What these nodes, which run or not, say of their cluster. Each question costs a rabbitmqctl, 0.5 s."""

    def __init__(self, nodes: Sequence[PrivateNode]) -> None:
        self._nodes = nodes

    def together(self) -> frozenset[str]:
        """The names of the nodes that see each other, most of all; none when nobody can say."""
        views = self.views().values()
        return max((view.running for view in views), key=len, default=frozenset())

    def out_of_step(self) -> list[PrivateNode]:
        """Nodes that run beside the majority: they miss what was declared meanwhile, and only a restart mends that.

        A node that was frozen for longer than its peers wait comes back as if nothing had been; `pause_minority` does
        not see it (3.10).
        """
        views = self.views()
        against = {name: sum(name in view.split for view in views.values()) for name in views}
        return [node for node in self._nodes if 2 * against.get(node.seat.name, 0) > len(self._nodes)]

    def views(self) -> Mapping[str, View]:
        """The view of every node that runs and answers, by its name."""
        running = [node for node in self._nodes if node.status().running]
        if not running:
            return {}
        with ThreadPoolExecutor(len(running)) as pool:
            found = dict(zip([node.seat.name for node in running], pool.map(_view, running), strict=True))
        return {name: view for name, view in found.items() if view is not ALONE}

    def forget(self, name: str) -> None:
        """Take a node that has lost its data out of the cluster, so that it can join as a new one."""
        for node in self._nodes:
            if node.seat.name != name and node.status().running and name in _view(node).known:
                node.ctl("forget_cluster_node", name)
                return

    def spread(self) -> None:
        """Give every queue and stream a member on every node: those that were made before a node came lack it there."""
        ask = next(node for node in self._nodes if node.status().running)
        for vhost in _table(ask.ctl("list_vhosts", "name", "--formatter", "json")):
            for queue in _queues(ask, vhost["name"]):
                for name in (node.seat.name for node in self._nodes):
                    if name not in (queue["members"] or (name,)):
                        _grow(ask, vhost["name"], queue, name)


def _queues(node: PrivateNode, vhost: str) -> list[dict[str, Any]]:
    """Name, type and members of all queues: a stream that is not back yet makes the whole list fail (3.10)."""
    for _ in range(LIST_TRIES):
        with contextlib.suppress(NodeError, ValueError):
            printed = node.ctl("list_queues", "-p", vhost, "name", "type", "members", "--formatter", "json")
            return [queue for queue in _table(printed) if queue["type"] in ("quorum", "stream")]
        time.sleep(LIST_AGAIN_S)
    raise NodeError(
        f"the cluster with {node.base} cannot list its queues, so it is not known whether each has a member on every "
        "node; see its log"
    )


def _grow(node: PrivateNode, vhost: str, queue: dict[str, Any], name: str) -> None:
    """Add the node `name` to the members of a queue."""
    if queue["type"] == "stream":
        node.ctl("add_replica", queue["name"], name, "--vhost", vhost, program="rabbitmq-streams")
    else:
        these = ("--vhost-pattern", f"^{re.escape(vhost)}$", "--queue-pattern", f"^{re.escape(queue['name'])}$")
        node.ctl("grow", name, "all", *these, program="rabbitmq-queues")


def _view(node: PrivateNode) -> View:
    with contextlib.suppress(NodeError, ValueError, KeyError):
        told = json.loads(node.ctl("cluster_status", "--formatter", "json"))
        return View(
            known=frozenset(told["disk_nodes"]),
            running=frozenset(told["running_nodes"]),
            split=frozenset(told["partitions"].get(node.seat.name, ())),
        )
    return ALONE


def _table(printed: str) -> list[dict[str, Any]]:
    """What rabbitmqctl prints as JSON; it may write a word before it."""
    rows: list[dict[str, Any]] = json.loads(printed[printed.index("[") :])
    return rows
