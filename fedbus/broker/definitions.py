"""RabbitMQ's definitions.json from the topology: virtual hosts, logins and what each login may touch.

What lives here: who may do what, and its encoding for the broker. What may not: a running broker.

    login        configure   write                          read                   keys it may publish
    aggregator   fedbus.*    fedbus.*, default exchange     fedbus.*               all
    submitter    nothing     fedbus.jobs                    fedbus.events          submit.<itself>, abort.*, query
    a site       nothing     fedbus.sites, fedbus.updates   fedbus.site.<itself>   <itself>.<kind>, <job>.<itself>
                                                            and fedbus.models.*

A login of a certificate has no password and its role stands in the certificate; such a site reads only the model logs
whose names have the bit of its number.

The aggregator writes to the default exchange because that is where replies to a `reply_to` go. RabbitMQ allows every
routing key to a login without topic permission, so a login gets its topic permissions before it may enter a virtual
host. Topic *read* permission guards bindings: without it the submitter, who may write to the exchange `fedbus.jobs`
and so to the queue of the same name, could bind that queue to the events it reads.
Bindings of streams are not in here, the aggregator declares them whenever it starts: RabbitMQ 4 takes definitions in at
every boot before its streams are there, and one binding of a stream ends each boot but the first.
Not refused by any broker: a login may ask for the message count of every queue (passive declare).
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fedbus.bus import topology
from fedbus.bus.log_readers import models_read_pattern
from fedbus.bus.topology import Topology
from fedbus.core.protocol.messages import check_name
from fedbus.trust.subjects import Role, Subject

VHOST = "fedbus"
# The broker's `$` also matches before a newline at the end, so that `site-a.join\n` passed for `site-a.join`.
END = r"(?!\n)$"
NOTHING = f"^{END}"
# A daemon has three connections and some channels on each; those of a cut line stay for three heartbeats.
SITE_LIMITS = {"max-connections": 64, "max-channels": 256}


# Logins whose name is their role; no site may take one of these names.
STAFF = (Role.AGGREGATOR, Role.SUBMITTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A broker login. ValueError for a name that is no site name; the password is kept out of its repr.

    `subject` is whom its certificate names, when it has one: then there is no password.
    """

    name: str
    password: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(18))
    subject: Subject | None = None

    def __post_init__(self) -> None:
        check_name("login", self.name)
        if self.role is Role.BROKER:
            raise ValueError(f"{self.subject} is no login: a broker does not log in to itself")

    @classmethod
    def certified(cls, subject: Subject) -> Login:
        """The login of a certificate: no password opens it."""
        return cls(name=subject.name, password="", subject=subject)

    @property
    def role(self) -> Role:
        if self.subject is not None:
            return self.subject.role
        return Role(self.name) if self.name in STAFF else Role.SITE

    @property
    def models(self) -> str:
        """Pattern, without anchors, of the model logs that a site may read."""
        number = None if self.subject is None else self.subject.number
        return r"fedbus\.models\.[a-z0-9.-]+" if number is None else models_read_pattern(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one login may do in a virtual host: regular expressions over names, and over keys for each exchange."""

    configure: str
    write: str
    read: str
    keys: dict[str, str]


def grant(login: Login) -> Grant:
    """The row of the table above for this login. A key pattern also forbids the login to bind that exchange."""
    name = re.escape(login.name)
    if login.role is Role.AGGREGATOR:
        return Grant(configure=r"^fedbus\..*", write=rf"^(fedbus\..*|amq\.default){END}", read=r"^fedbus\..*", keys={})
    if login.role is Role.SUBMITTER:
        return Grant(
            configure=NOTHING,
            write=rf"^fedbus\.jobs{END}",
            read=rf"^fedbus\.events{END}",
            keys={topology.JOBS: rf"^(submit\.{name}|abort\.[a-z0-9-]+|query){END}", topology.EVENTS: NOTHING},
        )
    kinds = "|".join(topology.SiteKind)
    return Grant(
        configure=NOTHING,
        write=rf"^fedbus\.(sites|updates){END}",
        read=rf"^(fedbus\.site\.{name}|{login.models}){END}",
        keys={topology.SITES: rf"^{name}\.({kinds}){END}", topology.UPDATES: rf"^[a-z0-9-]+\.{name}{END}"},
    )


def password_hash(password: str, salt: bytes | None = None) -> str:
    """RabbitMQ's `rabbit_password_hashing_sha256`: base64 of 4 bytes of salt, then SHA-256 of salt and password."""
    salt = secrets.token_bytes(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def federation_topology(logins: Sequence[Login]) -> Topology:
    """What one virtual host holds before any job: the federation's exchanges and queues, and one queue per site."""
    whole = topology.FEDERATION
    for login in logins:
        if login.role is Role.SITE:
            whole += topology.site_topology(login.name)
    return whole


def definitions(logins: Sequence[Login], *, vhosts: Sequence[str] = (VHOST,)) -> dict[str, Any]:
    """The whole definitions.json as JSON-able data; every virtual host gets the same logins, queues and bindings."""
    bus = federation_topology(logins)
    streams = {q.name for q in bus.queues if q.arguments["x-queue-type"] == "stream"}
    return {
        "vhosts": [{"name": vhost} for vhost in vhosts],
        **users(logins, vhosts=vhosts),
        "policies": [_policy(policy, vhost) for vhost in vhosts for policy in topology.POLICIES],
        "permissions": [_permission(login, vhost) for vhost in vhosts for login in logins],
        "exchanges": [
            {"name": x.name, "vhost": vhost, "type": x.kind, **_DURABLE, "internal": False, "arguments": {}}
            for vhost in vhosts
            for x in bus.exchanges
        ],
        "queues": [
            {"name": q.name, "vhost": vhost, **_DURABLE, "arguments": dict(q.arguments)}
            for vhost in vhosts
            for q in bus.queues
        ],
        "bindings": [
            {
                "source": b.exchange,
                "vhost": vhost,
                "destination": b.queue,
                "destination_type": "queue",
                "routing_key": b.key,
                "arguments": {},
            }
            for vhost in vhosts
            for b in bus.bindings
            if b.queue not in streams
        ],
    }


def users(logins: Sequence[Login], *, vhosts: Sequence[str]) -> dict[str, Any]:
    """Only users and topic permissions: on a running broker they are imported first, when nobody may enter yet."""
    return {
        "users": [
            {
                "name": login.name,
                # an empty hash is what no password fits
                "password_hash": password_hash(login.password) if login.password else "",
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                # Matters only where the management plugin is on: its web page can then publish a job.
                "tags": ["management"] if login.role is Role.SUBMITTER and login.password else [],
                "limits": SITE_LIMITS if login.role is Role.SITE else {},
            }
            for login in logins
        ],
        "topic_permissions": [
            {"user": login.name, "vhost": vhost, "exchange": exchange, "write": pattern, "read": NOTHING}
            for vhost in vhosts
            for login in logins
            for exchange, pattern in grant(login).keys.items()
        ],
    }


_DURABLE = {"durable": True, "auto_delete": False}


def _policy(policy: topology.PolicySpec, vhost: str) -> dict[str, Any]:
    return {
        "vhost": vhost,
        "name": policy.name,
        "pattern": policy.pattern,
        "apply-to": "queues",
        "priority": 1,
        "definition": {"max-length-bytes": policy.max_bytes},
    }


def _permission(login: Login, vhost: str) -> dict[str, str]:
    allowed = grant(login)
    return {
        "user": login.name,
        "vhost": vhost,
        "configure": allowed.configure,
        "write": allowed.write,
        "read": allowed.read,
    }
