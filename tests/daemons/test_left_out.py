"""A site that a job leaves out learns nothing of its model, whatever its login tries."""

from __future__ import annotations

import json
from datetime import timedelta

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from fedbus.bus import topology as t
from fedbus.local.federation import wait_until
from tests.acts import lasting

HEADERS = {"schema": 1}


@pytest.fixture
def job(house):
    """A job for cleveland alone, in the middle; hungary has a login."""
    house.start_aggregator()
    house.start_site("cleveland", step_delay_s=0.02)
    job = house.submit(sites=["cleveland"], stop={"versions": 10**6})
    house.committed(2)
    return job


@pytest.fixture
def hungary(house):
    connection = pika.BlockingConnection(lasting(house.running.url("hungary")))
    yield connection
    connection.close()


def reads(house, stream: str) -> bytes | None:
    """The first record of a stream as hungary's login gets it; None when the broker refuses."""
    with pika.BlockingConnection(lasting(house.running.url("hungary"))) as connection:
        channel = connection.channel()
        try:
            channel.basic_qos(prefetch_count=1)
            arguments = {"x-stream-offset": "first"}
            _, _, body = next(channel.consume(stream, inactivity_timeout=10, arguments=arguments))
            channel.cancel()
        except ChannelClosedByBroker:
            return None
        return body


def is_gone(house, stream: str) -> bool:
    """Whether the broker says that there is no such stream; while it deletes one it may close the connection (541)."""
    try:
        return reads(house, stream) is None
    except ConnectionClosedByBroker:
        return False


def says(connection: pika.BlockingConnection, kind: str, type_: str, **content: object) -> None:
    properties = pika.BasicProperties(type=type_, headers=HEADERS, user_id="hungary", message_id="m")
    body = json.dumps({"site": "hungary", **content}).encode()
    connection.channel().basic_publish(t.SITES, f"hungary.{kind}", body, properties)


def told(connection: pika.BlockingConnection) -> list[str]:
    """Types of all that the aggregator has told hungary so far."""
    types = []
    for method, properties, _ in connection.channel().consume(t.site_queue("hungary"), inactivity_timeout=1):
        if method is None:
            break
        types.append(properties.type)
    return types


def test_a_site_left_out_finds_no_model_log_and_is_not_told_its_name(house, job, hungary):
    # given the name that follows from the job's
    assert reads(house, t.models_stream(job)) is None
    # when the site says that it takes part, that it is behind, and that it needs a snapshot
    says(hungary, "join", "join", session="s", tasks=["synthetic"], fedbus_version="0.1.0")
    says(hungary, "answer", "offer-answer", job=job, accepted=True)
    activity = {"job": job, "activity": "training", "version": -1}
    says(hungary, "status", "status", session="s", lease_s=60, jobs=[activity])
    says(hungary, "answer", "resync", job=job, reason="please")
    house.aggregator.wait_for("site-joined", site="hungary")
    house.committed(house.job(job)["version"] + 2)
    # then it is told nothing of the job
    assert not {"offer", "job-started", "receipt"} & set(told(hungary))


def test_the_name_is_that_of_its_sites_through_a_kill_and_goes_with_the_job(house, job):
    # given a job whose log has a name that this login could read, had it been told
    stream = house.model_log(job)
    assert reads(house, stream) is not None
    # when the aggregator is killed and another one started
    version = house.job(job)["version"]
    house.kill(house.aggregator)
    house.start_aggregator()
    house.committed(version + 2)
    # then it is the same log
    assert house.model_log(job) == stream
    # and it goes with the job
    house.ask(lambda client: client.abort(job, "seen enough"))
    house.ended(job, state="aborted")
    wait_until(lambda: is_gone(house, stream), within=timedelta(seconds=30), what="the end of the model log")
