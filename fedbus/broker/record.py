"""What node.json says of a private node: where it listens, which processes it is, whose broker it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedbus.broker.environment import Ports
from fedbus.broker.logins import write_private
from fedbus.broker.process import ProcessId
from fedbus.broker.provisioned import ProvisionedBroker
from fedbus.errors import NodeError

FILE = "node.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Ports, the processes, when they were started (seconds since the epoch).

    provisioned: the broker's folder of the provisioned federation that the node runs, if it does.
    """

    ports: Ports
    provisioned: str | None = None
    epmd: ProcessId | None = None
    broker: ProcessId | None = None
    since: float = 0.0

    @classmethod
    def read(cls, base: Path) -> Record | None:
        """The record of the node in this folder; None when none was ever started there. NodeError when damaged."""
        try:
            return cls._parse(json.loads((base / FILE).read_text()))
        except FileNotFoundError:
            return None
        except PermissionError as exc:
            raise NodeError(f"{base} belongs to another user: choose another with --dir") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise NodeError(f"{base}/{FILE} is damaged: end the node by hand and delete this file") from exc

    @classmethod
    def _parse(cls, data: dict[str, Any]) -> Record:
        return cls(
            ports=Ports(**data["ports"]),
            provisioned=data.get("provisioned"),
            epmd=ProcessId(**data["epmd"]) if data["epmd"] else None,
            broker=ProcessId(**data["broker"]) if data["broker"] else None,
            since=data["since"],
        )

    @property
    def provisioned_broker(self) -> ProvisionedBroker | None:
        """The federation's broker that this node is; None for one with passwords."""
        return ProvisionedBroker(Path(self.provisioned)) if self.provisioned else None

    def write(self, base: Path) -> None:
        write_private(base / FILE, json.dumps(asdict(self)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """`pid`, `port` and `since` are None when the node does not run. `tls`: certificates log in, no password does.

    Of a cluster `members` are its nodes, and all else is that of the first that runs.
    """

    running: bool
    base: Path
    pid: int | None = None
    port: int | None = None
    since: float | None = None
    tls: bool = False
    logins: tuple[str, ...] = ()
    members: tuple[NodeStatus, ...] = ()
