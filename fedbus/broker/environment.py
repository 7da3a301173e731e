"""What the programs of a private RabbitMQ node see: ports, configuration files, environment variables.

Everything lies in one folder and listens on 127.0.0.1; nothing of a system-wide RabbitMQ shines through.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbus.broker.process import free_port
from fedbus.bus.topology import MAX_MESSAGE_BYTES
from fedbus.errors import NodeError

NODE_NAME = "fedbus@localhost"  # each node that stands alone has its own epmd, so the name need not differ
DEBIAN_BIN = Path("/usr/lib/rabbitmq/bin")  # not /usr/sbin: those scripts switch to the user rabbitmq

CONF = """\
listeners.tcp.1 = 127.0.0.1:{port}
load_definitions = {base}/definitions.json
# A chunk of 8 MiB and what stands around it: nothing larger is ever sent.
max_message_size = {max_message_bytes}
log.console = false
log.file.level = info
"""


CTL_PORTS = 11
SILENT_AFTER_S = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All on 127.0.0.1: AMQP, Erlang distribution, its name service, and the first of CTL_PORTS for rabbitmqctl."""

    amqp: int
    dist: int
    epmd: int
    ctl: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.amqp}"

    @property
    def all(self) -> frozenset[int]:
        """Every one of them."""
        return frozenset((self.amqp, self.dist, self.epmd, *range(self.ctl, self.ctl + CTL_PORTS)))

    @classmethod
    def choose(cls, amqp: int | None, *, epmd: int | None = None) -> Ports:
        """Free ports, no two of them the same; `epmd` is one that answers already."""
        while True:
            first, own = free_port(in_a_row=2 + CTL_PORTS), amqp or free_port()
            if not first <= own < first + 2 + CTL_PORTS:
                return cls(amqp=own, dist=first, epmd=epmd or first + 1, ctl=first + 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Whose node it is: one that stands alone, or one of a cluster.

    name: as its peers know it. home: the folder with the cookie, that of node 1 for all; None for the node's own.
    conf: what stands in its rabbitmq.conf besides; "" for a node alone.
    """

    name: str = NODE_NAME
    home: Path | None = None
    conf: str = ""

    def configured(self, conf: str, peers: Sequence[str], loads: Path | None) -> str:
        """rabbitmq.conf of this node, which may join one of these peers and takes the definitions `loads` in."""
        if not self.conf:
            return conf
        conf = re.sub(r"(?m)^load_definitions\s*=.*$", f"load_definitions = {loads}" if loads else "", conf)
        found = [f"cluster_formation.classic_config.nodes.{n} = {name}" for n, name in enumerate(peers, 1)]
        discovery = ["cluster_formation.peer_discovery_backend = classic_config", *found] if found else []
        return "\n".join([conf, self.conf, *discovery, ""])

    @property
    def erl_args(self) -> str:
        """A peer that says nothing for so long is gone: they are on one machine."""
        return f" -kernel net_ticktime {SILENT_AFTER_S}" if self.conf else ""


def find_rabbitmq(places: Sequence[Path] = (DEBIAN_BIN,)) -> Path:
    """The folder with RabbitMQ's own start scripts: one of `places`, or that of the program on PATH.

    NodeError when RabbitMQ is not installed.
    """
    on_path = shutil.which("rabbitmq-server")
    for folder in (*places, *([Path(on_path).resolve().parent] if on_path else [])):
        if (folder / "rabbitmq-server").is_file() and (folder / "rabbitmqctl").is_file():
            return folder
    raise NodeError(
        "RabbitMQ is not installed here: `apt-get install rabbitmq-server`, "
        "or set FEDBUS_BROKER_URL to a broker that runs elsewhere"
    )


def config_files(base: Path, ports: Ports) -> dict[str, str]:
    """Name and text of the configuration files; the empty one hides /etc/rabbitmq/rabbitmq-env.conf."""
    return {
        "rabbitmq.conf": CONF.format(port=ports.amqp, base=base, max_message_bytes=MAX_MESSAGE_BYTES),
        "enabled_plugins": "[].\n",
        "env.conf": "",
    }


def environment(base: Path, ports: Ports, seat: Seat) -> dict[str, str]:
    """The environment of every program of the node in folder `base`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_"))}
    return inherited | {
        "HOME": f"{seat.home or base}/home",
        "LC_ALL": "C.UTF-8",
        "RABBITMQ_CONF_ENV_FILE": f"{base}/env.conf",
        "RABBITMQ_NODENAME": seat.name,
        "RABBITMQ_NODE_PORT": str(ports.amqp),
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": f"{base}/data",
        "RABBITMQ_LOG_BASE": f"{base}/log",
        "RABBITMQ_CONFIG_FILE": f"{base}/rabbitmq.conf",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{base}/advanced.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{base}/enabled_plugins",
        "RABBITMQ_FEATURE_FLAGS_FILE": f"{base}/data/feature_flags",
        "RABBITMQ_PID_FILE": f"{base}/data/pid",
        "RABBITMQ_DIST_PORT": str(ports.dist),
        "RABBITMQ_CTL_DIST_PORT_MIN": str(ports.ctl),
        "RABBITMQ_CTL_DIST_PORT_MAX": str(ports.ctl + CTL_PORTS - 1),
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP": f"{base}/log/erl_crash.dump",
        # The start script then becomes the broker by exec: the pid that we record is the broker's own.
        "RABBITMQ_ALLOW_INPUT": "1",
        "RABBITMQ_SERVER_START_ARGS": "-noinput",
        # No busy waiting: the cores belong to training.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} "
        f"+sbwt none +sbwtdcpu none +sbwtdio none{seat.erl_args}",
    }
