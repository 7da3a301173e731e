"""Requests in a federation with kits: signed as the page says, from any AMQP client, and refused when they are not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pika
import pytest

from tests.acts import channel_of

PAGE = Path(__file__).parents[2] / "deploy" / "docs" / "jobs.md"
MESSAGE = "a-message-of-mine"


@pytest.fixture(scope="module")
def signed():
    """`signed` of the page."""
    (code,) = re.findall(r"```python\n(.*?def signed.*?)```", PAGE.read_text(), flags=re.S)
    names: dict = {}
    exec(code, names)  # noqa: S102 it is our own page
    return names["signed"]


def request(channel, key: str, body: bytes, headers: dict, **properties) -> tuple[dict, pika.BasicProperties]:
    answers: list = []

    def on_answer(_channel, _method, answered, content) -> None:
        answers.append((json.loads(content), answered))
        channel.stop_consuming()

    tag = channel.basic_consume("amq.rabbitmq.reply-to", on_answer, auto_ack=True)
    said = pika.BasicProperties(user_id="submitter", reply_to="amq.rabbitmq.reply-to", headers=headers, **properties)
    channel.basic_publish("fedbus.jobs", key, body, said)
    channel.start_consuming()
    channel.basic_cancel(tag)
    return answers[0]


def test_any_client_signs_as_the_page_says_and_is_told_when_it_does_not(sealed_house, provisioned, signed):
    house = sealed_house
    house.start_aggregator()
    site = house.start_site("cleveland")
    kit = provisioned.kit("submitter")
    body = json.dumps(house.spec(name="by-hand")).encode()

    with channel_of(provisioned, "submitter") as channel:
        # given a submit that nobody has signed, one that another text was signed for, and a query
        unsigned, _ = request(channel, "submit.submitter", body, {}, type="submit", message_id=MESSAGE)
        headers = signed(kit, "hearts", "submit.submitter", "submit", MESSAGE, {}, body)
        forged, _ = request(channel, "submit.submitter", body + b" ", headers, type="submit", message_id=MESSAGE)
        asked, _ = request(channel, "query", b"{}", {}, type="query")
        for answer, words in ((unsigned, "not signed"), (forged, "does not fit"), (asked, "not signed")):
            (problem,) = answer["rejected"]["errors"]
            assert problem["path"] == "signature"
            assert words in problem["message"]
            assert "fedbus --kit DIR submit" in problem["message"]
        # when it is signed as the page says
        answer, answered = request(channel, "submit.submitter", body, headers, type="submit", message_id=MESSAGE)
        job = answer["accepted"]["job"]
        assert {"suite", "at", "certificate", "signature"} <= answered.headers.keys()
        # then the site, which checks it too, takes part
        house.ended(job)
        assert [e["job"] for e in site.events() if e["event"] == "accepted"] == [job]
        # and the same submit is no second job, not even when the first one is forgotten
        again, _ = request(channel, "submit.submitter", body, headers, type="submit", message_id=MESSAGE)
        assert again["accepted"]["job"] == job
        assert house.fedbus("rm", job).code == 0
        late, _ = request(channel, "submit.submitter", body, headers, type="submit", message_id=MESSAGE)
        assert "forgotten" in late["rejected"]["errors"][0]["message"]
