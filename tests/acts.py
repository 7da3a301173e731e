"""Acts of a login on a real broker, for tests of what it may and may not do.

pika speaks here, not our own adapters: a site that breaks the rules would not use them either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from fedbus.bus import topology
from fedbus.trust.identity import Identity

Act = Callable[[BlockingChannel], Any]


def lasting(url: str) -> pika.URLParameters:
    """How a connection is made that lives as long as its test: nobody serves its heartbeats between two acts of it."""
    found = pika.URLParameters(url)
    found.heartbeat = 0
    return found


def parameters(vhost, login: str) -> pika.URLParameters:
    """How a login connects: by its password, or by the certificate of its kit."""
    found = lasting(vhost.url(login))
    if (kit := vhost.kit(login)) is not None:
        found.credentials = pika.credentials.ExternalCredentials()
        found.ssl_options = pika.SSLOptions(Identity.load(kit).ssl_context(), found.host)
    return found


@contextmanager
def channel_of(vhost, login: str) -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(parameters(vhost, login))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    finally:
        if connection.is_open:
            connection.close()


def publish(exchange: str, key: str, **properties: Any) -> Act:
    sent = pika.BasicProperties(**properties)
    return lambda channel: channel.basic_publish(exchange, key, b"{}", sent, mandatory=True)


def declare_job(as_login, job: str = "job-1") -> None:
    """What the aggregator does when a job starts."""
    log = topology.ModelLogSize(snapshot_bytes=1 << 20, delta_bytes=1 << 19, snapshot_every=10)
    wanted = topology.job_updates(job) + topology.job_models(job, log)
    wanted += topology.Topology(bindings=tuple(topology.updates_from(job, site) for site in ("site-a", "site-b")))
    with as_login("aggregator") as channel:
        for queue in wanted.queues:
            channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in wanted.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.key)


def receive(channel: BlockingChannel, queue: str, **arguments: Any) -> tuple[str, pika.BasicProperties, bytes]:
    """Key, properties and body of the first message; a queue with a single active consumer refuses basic.get."""
    channel.basic_qos(prefetch_count=1)
    method, properties, body = next(channel.consume(queue, inactivity_timeout=10, arguments=arguments))
    assert method is not None, f"no message in {queue}"
    channel.basic_ack(method.delivery_tag)
    return method.routing_key, properties, body


SITE_REFUSALS: dict[str, Act] = {
    "report as another site": publish(topology.SITES, "site-b.join"),
    "report under a key that only begins like its own": publish(topology.SITES, "site-a.join.more"),
    "report with a kind that is not in the protocol": publish(topology.SITES, "site-a.takeover"),
    "report under its own key and a newline": publish(topology.SITES, "site-a.join\n"),
    "send an update under its own key and a newline": publish(topology.UPDATES, "job-1.site-a\n"),
    "send an update to a job and a newline": publish(topology.UPDATES, "job-1\n.site-a"),
    "declare a queue named by a newline": lambda channel: channel.queue_declare("\n", durable=True),
    "declare an exchange named by a newline": lambda channel: channel.exchange_declare("\n", "topic"),
    "send an update as another site": publish(topology.UPDATES, "job-1.site-b"),
    "send an update with another site's name before its own": publish(topology.UPDATES, "job-1.site-b.site-a"),
    "publish through the default exchange": publish("", topology.site_queue("site-b")),
    "publish through the default exchange to itself": publish("", topology.site_queue("site-a")),
    "submit a job": publish(topology.JOBS, topology.submit_key("site-a")),
    "publish a model": publish(topology.MODELS, topology.models_key("job-1")),
    "give orders": publish(topology.CONTROL, topology.control_key_all()),
    "invent events": publish(topology.EVENTS, topology.event_key("job-1", "site-a", "folded")),
    "fill the dead letters": publish(topology.DEAD, "updates.job-1"),
    "read another site's queue": lambda channel: channel.basic_get(topology.site_queue("site-b")),
    "consume another site's queue": lambda channel: channel.basic_consume(topology.site_queue("site-b"), print),
    "read the sites' reports": lambda channel: channel.basic_get(topology.SITES),
    "read the updates of a job": lambda channel: channel.basic_get(topology.updates_queue("job-1")),
    "read the jobs": lambda channel: channel.basic_get(topology.JOBS),
    "read the dead letters": lambda channel: channel.basic_get(topology.DEAD),
    "declare a queue": lambda channel: channel.queue_declare("fedbus.site.site-a.mine", durable=True),
    "declare a queue named by the broker": lambda channel: channel.queue_declare("", exclusive=True),
    "declare an exchange": lambda channel: channel.exchange_declare("fedbus.mine", "topic"),
    "bind its queue to the updates": lambda channel: channel.queue_bind(
        topology.site_queue("site-a"), topology.UPDATES, "#"
    ),
    "bind the updates to the sites' reports": lambda channel: channel.queue_bind(topology.SITES, topology.UPDATES, "#"),
    "purge another site's queue": lambda channel: channel.queue_purge(topology.site_queue("site-b")),
    "purge the sites' reports": lambda channel: channel.queue_purge(topology.SITES),
    "delete its own queue": lambda channel: channel.queue_delete(topology.site_queue("site-a")),
    "delete the model log": lambda channel: channel.queue_delete(topology.models_stream("job-1")),
    "delete an exchange": lambda channel: channel.exchange_delete(topology.UPDATES),
}
