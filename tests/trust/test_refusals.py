"""What a certificate's login may not do on a broker that runs from provisioned files."""

from __future__ import annotations

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, StreamLostError

from fedbus.bus import topology
from fedbus.bus.log_readers import readers_of
from tests.acts import SITE_REFUSALS, channel_of, declare_job, lasting, parameters, publish, receive

SECRET = "0123456789abcdef" * 2
MODEL_SIZE = topology.ModelLogSize(snapshot_bytes=1 << 20, delta_bytes=1 << 19, snapshot_every=10)


@pytest.fixture(scope="session")
def with_job(fresh_provisioned):
    """One federation with the queues of `job-1`, shared by the refusals: a refused act changes nothing in it."""
    shared = fresh_provisioned()
    declare_job(lambda login: channel_of(shared, login))
    return shared


@pytest.mark.parametrize("act", SITE_REFUSALS.values(), ids=SITE_REFUSALS)
def test_the_broker_refuses_a_site_to(with_job, act):
    with channel_of(with_job, "site-a") as site, pytest.raises(ChannelClosedByBroker) as refusal:
        act(site)
    assert refusal.value.reply_code == 403


def test_the_broker_refuses_a_site_to_sign_as_another(with_job):
    with channel_of(with_job, "site-a") as site, pytest.raises(ChannelClosedByBroker) as refusal:
        publish(topology.SITES, "site-a.join", user_id="site-b")(site)
    assert refusal.value.reply_code == 406
    assert "authenticated user was 'site-a'" in refusal.value.reply_text


def test_a_site_says_what_is_its_own_to_say(provisioned):
    with channel_of(provisioned, "site-a") as site:
        publish(topology.SITES, "site-a.join", user_id="site-a")(site)
    with channel_of(provisioned, "aggregator") as aggregator:
        assert receive(aggregator, topology.SITES)[1].user_id == "site-a"


@pytest.fixture
def log_of_site_b(provisioned) -> str:
    """The model log of a job that site-b alone takes part in; its name is no secret here."""
    stream = topology.models_stream("job-b", SECRET, readers_of([1]))
    log = topology.job_models("job-b", MODEL_SIZE, stream=stream)
    with channel_of(provisioned, "aggregator") as aggregator:
        for queue in log.queues:
            aggregator.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in log.bindings:
            aggregator.queue_bind(binding.queue, binding.exchange, binding.key)
        publish(topology.MODELS, topology.models_key("job-b"))(aggregator)
    return stream


def test_a_site_reads_the_model_log_of_its_job(provisioned, log_of_site_b):
    with channel_of(provisioned, "site-b") as site:
        assert receive(site, log_of_site_b, **{"x-stream-offset": "first"})[2] == b"{}"


@pytest.mark.parametrize("login", ["site-a", "site-c", "submitter"])
def test_the_model_log_of_a_job_is_for_its_sites_alone(provisioned, log_of_site_b, login):
    with channel_of(provisioned, login) as channel:
        channel.basic_qos(prefetch_count=1)
        with pytest.raises(ChannelClosedByBroker) as refusal:
            channel.basic_consume(log_of_site_b, print, arguments={"x-stream-offset": "first"})
    assert refusal.value.reply_code == 403


# ------------------------------------------------------------------ ways in that are closed


def test_a_password_opens_nothing_even_behind_a_certificate(provisioned):
    by_password = parameters(provisioned, "site-a")
    by_password.credentials = pika.PlainCredentials("site-a", "")
    with pytest.raises(AMQPConnectionError):
        pika.BlockingConnection(by_password)


def test_amqp_without_tls_is_not_spoken_on_any_port_of_the_broker(provisioned):
    port = parameters(provisioned, "site-a").port
    with pytest.raises((AMQPConnectionError, StreamLostError)):
        pika.BlockingConnection(lasting(f"amqp://site-a:x@127.0.0.1:{port}/{provisioned.vhost}"))
    listening = provisioned.node.ctl("eval", "[element(3, L) || L <- rabbit_networking:active_listeners()].")
    assert listening.strip() in ("['amqp/ssl']", "[clustering,'amqp/ssl']")
