"""Which logins a running private node knows: enrolling a site, taking it away, giving a login another password.

The files change first, then the broker: after a kill in between, a restart of the node does not bring back what was
taken away, and the same command again does the rest. Nobody else's connection is touched: the broker is told of one
login by its name.

    remove   its password opens nothing any more, its connections are closed, its queue goes with what waits in it
    rotate   the old password opens nothing any more, its connections are closed, its queue and what waits stay
"""

from __future__ import annotations

from typing import Any, Protocol

from fedbus.broker.definitions import VHOST, Login, definitions, users
from fedbus.broker.logins import LoginFolder
from fedbus.bus import topology
from fedbus.errors import NodeError


class Node(Protocol):
    """A node that runs: its login files, its definitions, and rabbitmqctl."""

    logins: LoginFolder

    def import_definitions(self, file: str, content: dict[str, Any]) -> None:
        """Let the broker take these in."""

    def keep_definitions(self, content: dict[str, Any]) -> None:
        """Let the next start take these in."""

    def ctl(self, *arguments: str) -> str: ...


def add(node: Node, site: str, *, address: str) -> None:
    """Enrol a site; nothing is new for one that is there."""
    logins = node.logins.write([site], address=address)
    # topic permissions before the login may enter the virtual host
    node.import_definitions("users.json", users(logins, vhosts=(VHOST,)))
    node.import_definitions("definitions.json", definitions(logins))


def remove(node: Node, site: str, *, address: str) -> None:
    """Take a site's login away. NodeError when neither the files nor the broker know it."""
    node.logins.check_site(site)
    known = site in node.logins.names()
    node.logins.remove(site)
    node.keep_definitions(definitions(node.logins.write([], address=address)))
    if site in _names(node.ctl("list_users")):
        node.ctl("delete_user", site)
        _close_connections(node, site, "this login was removed")
    elif not known:
        raise NodeError(f"there is no login {site!r}: {_known(node)}")
    queue = topology.site_queue(site)
    if queue in _names(node.ctl("list_queues", "-p", VHOST, "name")):
        node.ctl("delete_queue", queue, "-p", VHOST)


def rotate(node: Node, name: str, *, address: str) -> None:
    """Give a login another password; its login file has it. NodeError when there is no such login."""
    if name not in node.logins.names():
        raise NodeError(f"there is no login {name!r} to give another password: {_known(node)}")
    logins = node.logins.write([], address=address, renew=[name])
    node.keep_definitions(definitions(logins))
    renewed: list[Login] = [login for login in logins if login.name == name]
    node.import_definitions("users.json", {"users": users(renewed, vhosts=(VHOST,))["users"]})
    _close_connections(node, name, "this login has another password now")


def _close_connections(node: Node, name: str, why: str) -> None:
    node.ctl("close_all_user_connections", name, why)


def _known(node: Node) -> str:
    return f"known are {', '.join(node.logins.names()) or 'none'} (`fedbus broker status`)"


def _names(printed: str) -> set[str]:
    """The first column of what rabbitmqctl prints; a heading among them names nothing of ours."""
    return {line.split("\t")[0] for line in printed.splitlines()}
