"""Request and reply over the broker's direct reply-to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from fedbus.bus.consumer import Consumer
from fedbus.bus.publisher import Publisher
from fedbus.bus.rpc import reply, request
from fedbus.errors import NoAnswerError, PublishError, UnroutableError

ASKED = ("fedbus.jobs", "submit.submitter", b"{}")
PATIENT = timedelta(seconds=20)
IMPATIENT = timedelta(milliseconds=300)


async def answer_one(session, body):
    async with Consumer(session, "fedbus.jobs", prefetch=1) as deliveries:
        delivery = await anext(deliveries)
        answered = await reply(Publisher(session), delivery.envelope, body, type="accepted")
        await delivery.ack()
        return answered


async def test_request_gets_its_reply(open_session, vhost):
    answering = asyncio.create_task(answer_one(await open_session(), b"yes"))

    got = await request(await open_session(vhost.url("submitter")), *ASKED, timeout=PATIENT, type="job")

    assert (got.type, got.body, got.user_id) == ("accepted", b"yes", "aggregator")
    assert await answering


async def test_request_that_nobody_answers_says_so(open_session, vhost):
    session = await open_session(vhost.url("submitter"))

    with pytest.raises(NoAnswerError, match=r"nobody answered job on fedbus\.jobs .* is the aggregator running"):
        await request(session, *ASKED, timeout=IMPATIENT, type="job")


async def test_request_to_nowhere_is_unroutable(open_session):
    session = await open_session()

    with pytest.raises(UnroutableError):
        await request(session, "fedbus.control", "site.nobody", b"", timeout=PATIENT, type="job")


async def test_request_under_a_foreign_name_is_refused(open_session, vhost):
    session = await open_session(vhost.url("submitter"))

    with pytest.raises(PublishError, match=r"submit\.site-a"):
        await request(session, "fedbus.jobs", "submit.site-a", b"", timeout=PATIENT, type="job")


@pytest.mark.parametrize("place", ["amq.rabbitmq.reply-to.g1h2AAtyZXBseUA4NTM", "amq.rabbitmq.reply-to.", "nobody"])
async def test_requester_that_is_gone_is_no_error(open_session, envelope, place):
    publisher = Publisher(await open_session())

    async with asyncio.timeout(20):
        await reply(publisher, envelope("any", reply_to=place), b"too late", type="accepted")


async def test_reply_never_goes_into_a_queue_of_fedbus(open_session, envelope):
    publisher = Publisher(await open_session())
    asked = envelope("any", reply_to="fedbus.site.site-a")

    assert not await reply(publisher, asked, b"abort", type="accepted")
    assert not await reply(publisher, replace(asked, reply_to=None), b"", type="accepted")
