"""What the doctor sees at a real broker with a login, and that it leaves nothing there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pika
import pytest

from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.permissions import Permission, may_publish, may_read
from fedbus.doctor.broker import examine_broker, own_queue, version
from fedbus.doctor.finding import Area, Finding, Status
from fedbus.trust.subjects import Role
from tests.acts import lasting


def examined(url: str, role: Role, *, own_daemon: bool = False) -> dict[str, Finding]:
    """All findings by check."""
    found: list[Finding] = []

    async def run() -> None:
        session = Session(url, name="doctor", give_up_after=timedelta(0))
        await examine_broker(session, found.append, role=role, own_daemon=own_daemon, within_s=20)

    asyncio.run(run())
    return {finding.check: finding for finding in found}


def failed(findings: dict[str, Finding]) -> dict[str, Area]:
    return {check: finding.area for check, finding in findings.items() if finding.status is Status.FAIL}


@pytest.mark.parametrize("role", [Role.SITE, Role.SUBMITTER, Role.AGGREGATOR])
def test_a_login_as_provisioned_is_fine(vhost, role):
    found = examined(vhost.url("site-a" if role is Role.SITE else role), role)
    assert failed(found) == {}
    assert "may do what it must" in found["permissions"].text
    assert found["broker"].text.startswith("RabbitMQ ")


def test_nothing_is_published_and_nothing_is_taken(vhost):
    # given a message that waits for the site
    connection = pika.BlockingConnection(lasting(vhost.url("aggregator")))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(t.CONTROL, t.control_key_site("site-a"), b"{}")
    # when its doctor has looked
    examined(vhost.url("site-a"), Role.SITE)
    # then it waits still, delivered to nobody, and nobody has got anything of the site's
    method, _, _ = channel.basic_get(t.site_queue("site-a"))
    assert (method.redelivered, method.message_count) == (False, 0)
    assert channel.queue_declare(t.SITES, passive=True).method.message_count == 0
    connection.close()


def test_a_wrong_password(vhost):
    url = vhost.url("site-a").replace("site-a:", "site-a:x", 1)
    found = examined(url, Role.SITE)
    assert failed(found) == {"login": Area.LOGIN}
    assert "wrong user or password" in found["login"].text


def test_a_virtual_host_that_is_not_there(vhost):
    url = vhost.url("site-a").replace(vhost.vhost, "nowhere")
    assert "virtual host" in examined(url, Role.SITE)["login"].fix


def test_a_login_of_another_role_may_not_do_what_it_must(vhost):
    found = examined(vhost.url("site-a"), Role.SUBMITTER)
    assert "site-a may not publish to fedbus.jobs submit.site-a" in found["permissions"].text
    assert "definitions" in found["permissions"].fix


def test_definitions_that_allow_too_much_are_a_warning(vhost):
    found = examined(vhost.url("aggregator"), Role.SUBMITTER)
    assert found["permissions"].status is Status.WARN
    assert "which it should not" in found["permissions"].text


def test_a_site_whose_queue_was_never_made(vhost):
    channel = pika.BlockingConnection(lasting(vhost.url("aggregator"))).channel()
    channel.queue_delete(t.site_queue("site-a"))
    channel.connection.close()
    found = examined(vhost.url("site-a"), Role.SITE)
    assert "lacks what site-a would read fedbus.site.site-a" in found["permissions"].text


@pytest.mark.parametrize(
    ("readers", "own_daemon", "status"),
    [(0, False, Status.OK), (1, True, Status.OK), (1, False, Status.FAIL), (2, True, Status.FAIL)],
)
def test_a_second_site_of_the_same_name(readers, own_daemon, status):
    assert own_queue("mercy", readers, own_daemon).status is status


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("RabbitMQ 3.10.8", Status.OK),
        ("RabbitMQ 4.2.1", Status.OK),
        ("RabbitMQ 3.9.1", Status.FAIL),
        ("Qpid 9.1", Status.WARN),
        ("RabbitMQ", Status.WARN),
    ],
)
def test_the_version_of_the_broker(said, status):
    assert version(said).status is status


def test_a_message_that_is_too_large_for_the_broker_is_told_apart(throw_away_node: Callable[[], Any]):
    # given a broker with a small limit
    node = throw_away_node()
    node.start(sites=["mercy"], die_with_parent=True)
    limit = "application:set_env(rabbit, max_message_size, 100000), persistent_term:put(max_message_size, 100000)."
    node.ctl("eval", limit)
    found = examined(node.url("mercy"), Role.SITE)
    assert "max_message_size" in found["message size"].fix
    # and when it has an alarm, that is said and nothing is waited for
    node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    found = examined(node.url("mercy"), Role.SITE)
    assert failed(found) == {"alarm": Area.BROKER}
    assert "memory or disk alarm" in found["alarm"].text


@pytest.mark.parametrize(
    ("minutes", "status"), [(-600, Status.OK), (-10, Status.OK), (0, Status.OK), (10, Status.WARN), (16, Status.FAIL)]
)
def test_a_clock_that_is_behind_the_aggregators_is_told_from_its_newest_event(vhost, minutes, status):
    # given an event that was said so many minutes after now, by this machine's clock
    connection = pika.BlockingConnection(lasting(vhost.url("aggregator")))
    channel = connection.channel()
    channel.queue_bind(t.EVENTS, t.EVENTS, "#")
    channel.confirm_delivery()
    event = json.dumps({"at": time.time() + 60 * minutes}).encode()
    channel.basic_publish(t.EVENTS, t.event_key("j", "s", "k"), event, pika.BasicProperties(type="event"))
    connection.close()
    # then a submitter's doctor says so: within 15 minutes what it signs counts
    assert examined(vhost.url("submitter"), Role.SUBMITTER)["aggregator's clock"].status is status


def test_an_event_that_is_none_says_nothing_of_the_clock(vhost):
    connection = pika.BlockingConnection(lasting(vhost.url("aggregator")))
    channel = connection.channel()
    channel.queue_bind(t.EVENTS, t.EVENTS, "#")
    channel.confirm_delivery()
    for body in (b"", b"[", b"[" * 100_000, b"{}", b'{"at": "x"}', b'{"at": NaN}', b'{"at": 1e300}'):
        channel.basic_publish(t.EVENTS, t.event_key("j", "s", "k"), body, pika.BasicProperties(type="event"))
        found = examined(vhost.url("submitter"), Role.SUBMITTER)
        assert found["aggregator's clock"].status is Status.SKIPPED, body
    connection.close()


async def test_questions_are_answered_in_all_four_ways(vhost):
    async with Session(vhost.url("site-a"), name="test") as session:
        await session.ready()
        assert await may_publish(session, t.SITES, "site-a.join") is Permission.ALLOWED
        assert await may_publish(session, t.SITES, "site-b.join") is Permission.REFUSED
        assert await may_read(session, t.models_stream("no-job", "0" * 32)) is Permission.MISSING
        assert await may_publish(session, t.SITES, "site-a.join", size_bytes=10 << 20) is Permission.TOO_LARGE
