"""What each login may do on a real broker, and what the broker refuses: the table of `fedbus.broker.definitions`."""

from __future__ import annotations

import pika
import pytest
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAuthenticationError,
)

from fedbus.bus import topology
from fedbus.bus.topology import SiteKind
from fedbus.core.protocol.events import NOBODY
from tests.acts import SITE_REFUSALS, Act, channel_of, declare_job, lasting, publish, receive


@pytest.fixture
def as_login(vhost):
    return lambda login: channel_of(vhost, login)


# ------------------------------------------------------------------ what a site may do


@pytest.mark.parametrize("kind", list(SiteKind))
def test_a_site_reports_under_its_own_name(as_login, kind):
    with as_login("site-a") as site:
        publish(topology.SITES, topology.site_key("site-a", kind), user_id="site-a")(site)
    with as_login("aggregator") as aggregator:
        _, properties, _ = receive(aggregator, topology.SITES)
    assert properties.user_id == "site-a"


def test_a_site_sends_updates_under_its_own_name(as_login):
    declare_job(as_login)
    with as_login("site-a") as site:
        publish(topology.UPDATES, topology.update_key("job-1", "site-a"))(site)
    with as_login("aggregator") as aggregator:
        key, _, _ = receive(aggregator, topology.updates_queue("job-1"))
    assert key == "job-1.site-a"


@pytest.mark.parametrize("key", [topology.control_key_all(), topology.control_key_site("site-a")])
def test_a_site_reads_its_own_control_queue(as_login, key):
    with as_login("aggregator") as aggregator:
        publish(topology.CONTROL, key)(aggregator)
    with as_login("site-a") as site:
        assert receive(site, topology.site_queue("site-a"))[2] == b"{}"


@pytest.mark.parametrize("site", ["site-a", "va-long-beach"])
def test_every_site_reads_the_model_log_from_its_start(as_login, site):
    declare_job(as_login)
    with as_login("aggregator") as aggregator:
        publish(topology.MODELS, topology.models_key("job-1"))(aggregator)
    with as_login(site) as channel:
        key, _, _ = receive(channel, topology.models_stream("job-1"), **{"x-stream-offset": "first"})
    assert key == "job-1"


# ------------------------------------------------------------------ what a site may not do


@pytest.mark.parametrize("act", SITE_REFUSALS.values(), ids=SITE_REFUSALS)
def test_the_broker_refuses_a_site_to(vhost_with_job, act):
    with channel_of(vhost_with_job, "site-a") as site, pytest.raises(ChannelClosedByBroker) as refusal:
        act(site)
    assert refusal.value.reply_code == 403


def test_the_broker_refuses_a_site_to_sign_as_another(as_login):
    with as_login("site-a") as site, pytest.raises(ChannelClosedByBroker) as refusal:
        publish(topology.SITES, "site-a.join", user_id="site-b")(site)
    assert refusal.value.reply_code == 406
    assert "site-b" in refusal.value.reply_text


def test_a_site_cannot_empty_the_model_log_that_it_reads(vhost_with_job):
    with channel_of(vhost_with_job, "site-a") as site, pytest.raises((ConnectionClosedByBroker, ChannelClosedByBroker)):
        site.queue_purge(topology.models_stream("job-1"))


@pytest.mark.parametrize("exchange", ["site", "submitter"])
def test_nobody_sends_more_than_a_chunk_and_what_stands_around_it(as_login, exchange):
    login, key = {
        "site": ("site-a", (topology.SITES, "site-a.join")),
        "submitter": ("submitter", (topology.JOBS, topology.QUERY_KEY)),
    }[exchange]
    with as_login(login) as channel:
        channel.basic_publish(*key, bytes(topology.MAX_MESSAGE_BYTES), mandatory=True)
        with pytest.raises(ChannelClosedByBroker, match="larger than configured max size"):
            channel.basic_publish(*key, bytes(topology.MAX_MESSAGE_BYTES + 1), mandatory=True)


def test_what_waits_in_a_queue_is_bounded_in_bytes(vhost):
    # given the policies of the definitions
    found = vhost.node.ctl("list_queues", "-p", vhost.vhost, "name", "policy")
    policies = dict(line.split("\t") for line in found.splitlines())
    # then every queue that others fill and that has no bound of its own has one by policy
    bounds = {policy.name: policy.max_bytes for policy in topology.POLICIES}
    for queue in (topology.SITES, topology.JOBS, topology.site_queue("site-a")):
        assert 0 < bounds[policies[queue]] <= 256 * topology.MB


def test_a_site_cannot_open_connections_without_end(vhost):
    users = vhost.node.ctl("list_user_limits", "--user", "site-a")
    assert '"max-connections":64' in users
    assert '"max-channels":256' in users


def test_a_wrong_password_is_refused(vhost):
    url = vhost.url("site-a").replace("amqp://site-a:", "amqp://site-a:wrong")
    with pytest.raises(ProbableAuthenticationError):
        pika.BlockingConnection(lasting(url))


def test_the_login_that_every_rabbitmq_knows_does_not_exist(vhost):
    host = vhost.url("site-a").partition("@")[2]
    with pytest.raises(AMQPConnectionError):
        pika.BlockingConnection(lasting(f"amqp://guest:guest@{host}"))


# ------------------------------------------------------------------ submitter


@pytest.mark.parametrize(
    "key", [topology.submit_key("submitter"), topology.abort_key("job-1"), topology.QUERY_KEY], ids=str
)
def test_the_submitter_submits_aborts_and_asks(as_login, key):
    with as_login("submitter") as submitter:
        publish(topology.JOBS, key)(submitter)
    with as_login("aggregator") as aggregator:
        assert receive(aggregator, topology.JOBS)[0] == key


def test_the_submitter_gets_its_answer_by_direct_reply_to(as_login):
    with as_login("submitter") as submitter, as_login("aggregator") as aggregator:
        # given a submitter that listens on the broker's pseudo-queue, which needs no permission
        answers: list[bytes] = []
        submitter.basic_consume("amq.rabbitmq.reply-to", lambda *message: answers.append(message[3]), auto_ack=True)
        # when it asks, and the aggregator answers to `reply_to` through the default exchange
        publish(topology.JOBS, topology.QUERY_KEY, reply_to="amq.rabbitmq.reply-to")(submitter)
        _, question, _ = receive(aggregator, topology.JOBS)
        aggregator.basic_publish("", question.reply_to, b"accepted")
        # then the answer arrives
        submitter.connection.process_data_events(time_limit=10)
    assert answers == [b"accepted"]


def test_the_submitter_watches_the_events(as_login):
    with as_login("aggregator") as aggregator:
        aggregator.queue_bind(topology.EVENTS, topology.EVENTS, "#")
        publish(topology.EVENTS, topology.event_key("job-1", NOBODY, "committed"))(aggregator)
    with as_login("submitter") as submitter:
        key, _, _ = receive(submitter, topology.EVENTS, **{"x-stream-offset": "first"})
    assert key == "job-1.-.committed"


SUBMITTER_REFUSALS: dict[str, Act] = {
    "declare a queue named by a newline": lambda channel: channel.queue_declare("\n", durable=True),
    "submit as somebody else": publish(topology.JOBS, topology.submit_key("site-a")),
    "submit under a key and a newline": publish(topology.JOBS, topology.submit_key("submitter") + "\n"),
    "abort under a key and a newline": publish(topology.JOBS, topology.abort_key("job-1") + "\n"),
    "ask under a key and a newline": publish(topology.JOBS, topology.QUERY_KEY + "\n"),
    "use a key that is not in the protocol": publish(topology.JOBS, "anything"),
    "send an update": publish(topology.UPDATES, "job-1.submitter"),
    "report as a site": publish(topology.SITES, "site-a.join"),
    "invent events": publish(topology.EVENTS, "job-1.site-a.folded"),
    "publish through the default exchange": publish("", topology.site_queue("site-a")),
    "read the updates of a job": lambda channel: channel.basic_get(topology.updates_queue("job-1")),
    "read other people's jobs": lambda channel: channel.basic_get(topology.JOBS),
    "read a site's queue": lambda channel: channel.basic_get(topology.site_queue("site-a")),
    "read the model log": lambda channel: channel.basic_consume(topology.models_stream("job-1"), print),
    "declare a queue": lambda channel: channel.queue_declare("fedbus.mine", durable=True),
    "feed the events into the jobs": lambda channel: channel.queue_bind(topology.JOBS, topology.EVENTS, "#"),
    "feed the jobs into the jobs": lambda channel: channel.queue_bind(topology.JOBS, topology.JOBS, "#"),
}


@pytest.mark.parametrize("act", SUBMITTER_REFUSALS.values(), ids=SUBMITTER_REFUSALS)
def test_the_broker_refuses_the_submitter_to(vhost_with_job, act):
    with channel_of(vhost_with_job, "submitter") as submitter, pytest.raises(ChannelClosedByBroker) as refusal:
        act(submitter)
    assert refusal.value.reply_code == 403


# ------------------------------------------------------------------ aggregator


def test_the_aggregator_makes_and_deletes_the_queues_of_a_job(as_login):
    declare_job(as_login, "job-2")
    with as_login("aggregator") as aggregator:
        aggregator.queue_delete(topology.updates_queue("job-2"))
        aggregator.queue_delete(topology.models_stream("job-2"))


def test_the_broker_refuses_the_aggregator_what_is_not_of_fedbus(as_login):
    with as_login("aggregator") as aggregator, pytest.raises(ChannelClosedByBroker) as refusal:
        aggregator.queue_declare("somebody.elses", durable=True)
    assert refusal.value.reply_code == 403


@pytest.fixture(scope="session")
def vhost_with_job(fresh_vhost):
    """One federation with the queues of `job-1`, shared by the refusals: a refused act changes nothing in it."""
    shared = fresh_vhost()
    declare_job(lambda login: channel_of(shared, login))
    return shared
