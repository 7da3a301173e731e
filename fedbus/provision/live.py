"""What a running broker is told of a change: nothing restarts, and nobody but who was revoked loses a connection.

The broker is the private node of this folder, or the one of `rabbitmqctl` here when it reads its CA from this folder;
for any other the commands are said.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fedbus.broker.cluster import private_broker
from fedbus.broker.definitions import VHOST
from fedbus.broker.provisioned import node_folder
from fedbus.bus.topology import site_queue
from fedbus.errors import NodeError
from fedbus.provision.contents import broker_folder
from fedbus.provision.federation import Change, FederationFolder
from fedbus.trust.subjects import Role

CTL_LIMIT_S = 30.0
PLAIN_NAME = re.compile(r"[a-z0-9-]+")
WHOSE = 'io:format("~s", [proplists:get_value(cacertfile, application:get_env(rabbit, ssl_options, []), "")]).'
# at every node of a cluster
CLEAR = "rpc:multicall(ssl, clear_pem_cache, [])."
PUT_OUT = """
N = <<"{name}">>,
case rabbit_auth_backend_internal:lookup_user(N) of
    {{ok, _}} -> rabbit_auth_backend_internal:delete_user(N, <<"rmq-cli">>);
    {{error, not_found}} -> ok
end,
ok = rabbit_networking:close_all_user_connections(N, <<"revoked">>),
case rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)) of
    {{ok, Q}} -> rabbit_amqqueue:delete(Q, false, false, <<"rmq-cli">>);
    {{error, not_found}} -> ok
end,
{{error, not_found}} = rabbit_auth_backend_internal:lookup_user(N),
out.
"""
"""What the three commands of one who is revoked do, in one: each start of rabbitmqctl costs seconds. Read in RabbitMQ
3.10; one that has other functions fails here, and is then given the commands."""


class Ctl(Protocol):
    """rabbitmqctl of one broker; returns what it prints. NodeError when it fails."""

    def __call__(self, *arguments: str) -> str: ...


def reached(folder: FederationFolder, change: Change) -> Ctl | None:
    """The rabbitmqctl of this federation's running broker; None when it runs nowhere here."""
    own = node_folder(folder.base)
    if own.is_dir():
        node = private_broker(own)
        if node.status().running:
            return node.ctl
    place = broker_folder(folder.base / "broker", change.register)
    program = shutil.which("rabbitmqctl")
    if program is None or place != folder.base / "broker":
        return None
    ctl = _SystemCtl(program)
    try:
        return ctl if ctl("eval", WHOSE).splitlines()[:1] == [f"{place}/ca.pem"] else None
    except NodeError:
        return None


class _SystemCtl:
    """The rabbitmqctl of this machine's own broker."""

    def __init__(self, program: str) -> None:
        self._program = program

    def __call__(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                [self._program, "-q", *arguments],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=CTL_LIMIT_S,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NodeError(f"rabbitmqctl {arguments[0]} gave no answer: {exc}") from exc
        if done.returncode:
            raise NodeError(f"rabbitmqctl {arguments[0]} failed: {(done.stdout + done.stderr).strip()}")
        return done.stdout


def commands(folder: FederationFolder, change: Change) -> list[tuple[str, ...]]:
    """What rabbitmqctl is told, in this order: who is out first."""
    told: list[tuple[str, ...]] = []
    for name in change.revoked:
        told += [("delete_user", name), ("close_all_user_connections", name, "revoked")]
        if change.register.members[name].role is Role.SITE:
            told.append(("delete_queue", site_queue(name), "-p", VHOST))
    if change.reload:
        told.append(("eval", CLEAR))
    if change.added:
        place = broker_folder(folder.base / "broker", change.register)
        told.append(("import_definitions", str(place / "definitions.json")))
    return told


def tell(folder: FederationFolder, change: Change, ctl: Ctl) -> None:
    """Give the commands. A login or queue that is not there any more is no error. NodeError otherwise."""
    out = [name for name in change.revoked if _put_out(name, ctl)]
    for command in commands(folder, replace(change, revoked=tuple(n for n in change.revoked if n not in out))):
        try:
            ctl(*command)
        except NodeError:
            if not _absent(command, ctl):
                raise


def _put_out(name: str, ctl: Ctl) -> bool:
    """Whether the broker has put somebody out in one call. Names are a-z, 0-9 and '-' alone: none ends the text."""
    if not PLAIN_NAME.fullmatch(name):
        return False
    try:
        return ctl("eval", PUT_OUT.format(name=name, vhost=VHOST, queue=site_queue(name))).strip() == "out"
    except NodeError:
        return False


def _absent(command: tuple[str, ...], ctl: Ctl) -> bool:
    match command[0]:
        case "delete_user":
            return command[1] not in _first_column(ctl("list_users"))
        case "delete_queue":
            return command[1] not in _first_column(ctl("list_queues", "-p", VHOST, "name"))
        case _:
            return False


def _first_column(printed: str) -> set[str]:
    return {line.split("\t")[0] for line in printed.splitlines()}


def by_hand(folder: FederationFolder, change: Change) -> list[str]:
    """The commands for a broker elsewhere, the files that it reads first."""
    told = commands(folder, change)
    place: Path = broker_folder(folder.base / "broker", change.register)
    copies = [f"copy {folder.base / 'broker'}/ to {place} there"] if place != folder.base / "broker" else []
    quoted = [" ".join(f"'{word}'" if "(" in word else word for word in command) for command in told]
    return [*copies, *(f"rabbitmqctl {line}" for line in quoted)] if told else []
