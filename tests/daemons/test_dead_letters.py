"""A message that breaks the protocol is kept with the reason, and stops nothing."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pika
import pytest

from fedbus.bench.abuse.logins import site
from fedbus.local.federation import wait_until
from tests.acts import lasting

HEADERS = {"schema": 1}
SCORE = b'{"site":"hungary","job":"%s","version":1,"metrics":{"auc":NaN},"num_examples":1}'
UPDATE = json.dumps(
    {
        "job": "no-such-job",
        "update_id": "cleveland:00000000:1",
        "kind": "delta",
        "base_version": 0,
        "num_examples": 1,
        "layout_digest": "",
        "frames": 1,
        "body_bytes": 1,
    }
).encode()


@pytest.fixture(scope="module")
def job(manned_house):
    """A job in the middle, trained by cleveland; hungary has a login and no daemon."""
    manned_house.start_site("cleveland", step_delay_s=0.05)
    job = manned_house.submit(stop={"versions": 100_000})
    manned_house.committed(1)

    async def accept():
        async with site("hungary", manned_house.running.url("hungary")) as by_hand:
            await by_hand.take_part(job)

    asyncio.run(accept())
    return job


@pytest.fixture
def goes_on(manned_house, job):
    """Waits until the job has made two more versions."""
    return lambda: manned_house.committed(manned_house.job(job)["version"] + 2)


@pytest.fixture
def publish(manned_house, job):
    """Publishes a message of hungary's login, and returns its body."""

    def call(exchange: str, key: str, kind: str, body: bytes) -> bytes:
        properties = pika.BasicProperties(type=kind, headers=HEADERS, user_id="hungary", message_id="broken")
        body = body.replace(b"%s", job.encode())
        connection = pika.BlockingConnection(lasting(manned_house.running.url("hungary")))
        connection.channel().basic_publish(exchange, key.format(job=job), body, properties)
        connection.close()
        return body

    return call


@pytest.fixture
def dead_letter(manned_house):
    """Waits for the next dead letter and takes it: headers and body."""
    connection = pika.BlockingConnection(lasting(manned_house.running.url("aggregator")))
    channel = connection.channel()

    def letter():
        method, properties, body = channel.basic_get("fedbus.dead", auto_ack=True)
        return method and (properties.headers, body)

    yield lambda: wait_until(letter, within=timedelta(seconds=20), what="the dead letter")
    connection.close()


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (("fedbus.updates", "{job}.hungary", "chunk", b"garbage"), "chunk: header job must be a string"),
        (("fedbus.updates", "{job}.hungary", "update", UPDATE), "site, login and job must agree"),
        (("fedbus.updates", "{job}.hungary", "gossip", b""), "expected a message type of"),
        (("fedbus.sites", "hungary.answer", "score-answer", SCORE), "every number must be finite"),
        (("fedbus.sites", "hungary.join", "join", b"{}"), "site: Field required"),
    ],
    ids=["chunk without headers", "update of another site", "unknown type", "score that is NaN", "join without a name"],
)
def test_broken_message_is_kept_with_its_reason_and_the_job_goes_on(publish, dead_letter, goes_on, message, says):
    # when a site publishes what breaks the protocol
    body = publish(*message)
    # then it lies in fedbus.dead with the reason and the sender
    headers, kept = dead_letter()
    assert says in headers["reason"]
    assert headers["sender"] == "hungary"
    assert kept == body
    # and the job goes on
    goes_on()
