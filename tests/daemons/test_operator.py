"""Who may do everything on the broker and has nobody's key: what is copied, forged or sent again moves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.declare import declare
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.bus.topology import BindingSpec, QueueSpec, Topology
from fedbus.core.protocol import messages as m
from fedbus.local.federation import wait_until
from fedbus.trust.identity import Identity
from tests.waits import SOON

PACED = {"step_delay_s": 0.05}
COPIES = QueueSpec(name="copies", arguments={"x-queue-type": "classic"})
EXCHANGES = ("fedbus.sites", "fedbus.updates", "fedbus.control", "fedbus.models")
PLAIN = (b"num_examples", b"metrics", b"effort", b"FB\x01")


class Operator:
    """Copies everything that is published, and publishes whatever it likes in anybody's name."""

    def __init__(self, house, federation) -> None:
        self._house = house
        federation.node.ctl("set_permissions", "-p", federation.vhost, "aggregator", ".*", ".*", ".*")
        federation.node.ctl("clear_topic_permissions", "-p", federation.vhost, "aggregator")

    def _session(self, login: str) -> Session:
        running = self._house.running
        return Session(running.url(login), name="operator", identity=Identity.load(running.kit(login)))

    def listen(self) -> None:
        bindings = tuple(BindingSpec(exchange=exchange, key="#", queue=COPIES.name) for exchange in EXCHANGES)

        async def bind() -> None:
            async with self._session("aggregator") as session:
                await declare(session, Topology(queues=(COPIES,), bindings=bindings))

        asyncio.run(bind())

    def copies(self, *types: str) -> dict[str, Envelope]:
        """The first message of each of these types."""

        found: dict[str, Envelope] = {}

        def is_all(envelope: Envelope) -> bool:
            found.setdefault(envelope.type, envelope)
            return found.keys() >= {*types}

        self._read(COPIES.name, is_all)
        return found

    def dead_letters(self, count: int) -> list[str]:
        """Why the aggregator has refused the first so many messages."""
        found: list[str] = []

        def is_all(envelope: Envelope) -> bool:
            found.append(str(envelope.headers["reason"]))
            return len(found) >= count

        self._read("fedbus.dead", is_all)
        return found

    def _read(self, queue: str, is_all: Callable[[Envelope], bool]) -> None:
        async def read() -> None:
            async with (
                self._session("aggregator") as session,
                Consumer(session, queue, prefetch=64) as deliveries,
                asyncio.timeout(SOON.total_seconds()),
            ):
                async for delivery in deliveries:
                    await delivery.ack()
                    if is_all(delivery.envelope):
                        return

        asyncio.run(read())

    def publish(self, login: str, *envelopes: Envelope) -> None:
        async def send() -> None:
            async with self._session(login) as session:
                for envelope in envelopes:
                    await Publisher(session).publish(envelope)

        asyncio.run(send())


@pytest.fixture
def operator(sealed_house, provisioned) -> Operator:
    return Operator(sealed_house, provisioned)


def changed(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def test_the_operator_of_the_broker_reads_forges_and_repeats_nothing(sealed_house, operator):
    house = sealed_house
    house.start_aggregator()
    operator.listen()
    site = house.start_site("cleveland", **PACED)
    job = house.submit(stop={"versions": 10_000})
    house.committed(2)
    copies = operator.copies("join", "offer", "offer-answer", "receipt", "chunk", "update", "version")
    # nothing of an update can be read, nor of a version
    for kind in ("chunk", "update", "version"):
        assert not any(word in copies[kind].body for word in PLAIN)

    # when the operator tells the site that the job is over, with no signature or with that of a site
    over = m.JobEnded(job=job, state=m.JobState.ABORTED, reason="forged")
    operator.publish("aggregator", Post().control(over, site="cleveland"))
    another = Post(Identity.load(house.running.kit("hungary")))
    operator.publish("aggregator", another.outgoing(another.control(over, site="cleveland")))
    # or sends what was true once again, or a little changed
    operator.publish("aggregator", copies["receipt"], replace(copies["receipt"], body=changed(copies["receipt"].body)))

    # then the site says what it expected, and obeys nothing
    def refusals() -> list[str]:
        return [str(e["error"]) for e in site.events() if e["event"] in ("control-message", "repeated")]

    wait_until(lambda: len(refusals()) >= 4, within=SOON, what="four refusals", or_else=site.last_words)
    assert "is not signed" in refusals()[0]
    assert "certificate of site hungary" in refusals()[1]
    assert "came before" in refusals()[2]
    assert "does not fit" in refusals()[3]

    # when it sends in the site's name: copies, what it has changed, and what it has made
    chunk = copies["chunk"]
    forged = [
        copies["join"],
        Post().from_site(m.Leave(site="cleveland", session="forged")),
        replace(chunk, headers={**chunk.headers, "transfer": "cleveland:0123abcd:99"}, message_id="other"),
        replace(copies["update"], body=changed(copies["update"].body), message_id="another"),
    ]
    operator.publish("cleveland", *forged)

    # then the aggregator keeps each of them with the reason but the copy, and the site is where it was
    house.aggregator.wait_for("repeated", site="cleveland")
    reasons = "\n".join(operator.dead_letters(len(forged) - 1))
    for words in ("'leave' is not signed", "the key of a chunk", "message 'update'"):
        assert words in reasons

    # when it writes a version
    version = copies["version"]
    operator.publish("aggregator", replace(version, body=changed(version.body), message_id="forged"))
    wait_until(
        lambda: [e for e in site.events() if e["event"] == "model-log-record"], within=SOON, what="a refused version"
    )

    # then the job goes on as if nothing had been
    house.committed(house.job(job)["version"] + 3)
    assert house.site("cleveland")["state"] == "online"
    assert house.job(job)["state"] == "running"
    # and what the operator aborts without a submitter's key is not aborted
    said = house.fedbus("abort", job, kit=str(house.running.kit("aggregator")))
    assert said.code != 0
    assert house.job(job)["state"] == "running"
