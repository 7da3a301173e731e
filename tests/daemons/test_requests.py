"""What any AMQP client can ask: pika, which knows nothing of fedbus, publishes JSON and reads the answer."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pika
import pytest

from fedbus.core.protocol.messages import JobState
from tests.acts import lasting

REPLY_TO = "amq.rabbitmq.reply-to"
ANSWER_WITHIN_S = 20.0


@pytest.fixture
def ask(manned_house):
    """Publishes a request with pika and returns the answer."""
    parameters = lasting(manned_house.running.url("submitter"))

    def call(key: str, body: bytes, *, user_id: str | None = "submitter") -> dict[str, Any]:
        asked = pika.BasicProperties(reply_to=REPLY_TO, user_id=user_id, message_id=uuid.uuid4().hex)
        answers: list[bytes] = []
        connection = pika.BlockingConnection(parameters)
        try:
            channel = connection.channel()
            channel.basic_consume(REPLY_TO, lambda *delivery: answers.append(delivery[3]), auto_ack=True)
            channel.basic_publish("fedbus.jobs", key, body, asked)
            deadline = time.monotonic() + ANSWER_WITHIN_S
            while not answers and time.monotonic() < deadline:
                connection.process_data_events(time_limit=0.1)
        finally:
            connection.close()
        assert answers, manned_house.aggregator.last_words()
        return json.loads(answers[0])

    return call


def errors(answer: dict[str, Any]) -> dict[str, str]:
    """Messages of a rejection by path."""
    return {error["path"]: error["message"] for error in answer["rejected"]["errors"]}


def test_job_spec_as_json_is_accepted_and_listed(ask, manned_house):
    # when a client publishes a job spec as JSON
    answer = ask("submit.submitter", json.dumps(manned_house.spec(name="by-pika")).encode())
    # then it gets the id of a job that is there
    job = answer["accepted"]["job"]
    listed = {row["job"]: row for row in ask("query", b'{"what": "jobs"}')["jobs"]}
    assert listed[job]["submitted_by"] == "submitter"
    assert JobState(listed[job]["state"]) in (JobState.SUBMITTED, JobState.WAITING)


def test_spec_with_mistakes_is_rejected_with_every_one_and_its_path(ask, manned_house):
    # given a spec with four mistakes
    spec = manned_house.spec(name="A job", local={"steps": 0, "epochs": 1, "batch_size": 8, "learning_rate": "fast"})
    # when it is submitted
    found = errors(ask("submit.submitter", json.dumps({**spec, "colour": "blue"}).encode()))
    # then each is named where it stands
    assert found.keys() == {"name", "local", "local.steps", "local.learning_rate", "colour"}
    assert "exactly one of steps, epochs, seconds" in found["local"]


def test_key_that_stands_twice_in_json_is_rejected_with_its_path(ask):
    body = b'{"name": "a", "name": "b", "local": {"steps": 1, "steps": 2}, "keep": [{"x": 1, "x": 1}]}'
    assert set(errors(ask("submit.submitter", body))) == {"name", "local.steps", "keep.0.x"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"name: test", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[1, 2]", "the body must be a JSON object, got a list"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"task_config": {"note": "\\ud800"}}', "the body is not JSON"),
        (b'{"seed": NaN}', "the body is not JSON"),
    ],
)
def test_what_is_no_json_object_is_rejected_in_words(ask, body, says):
    assert says in errors(ask("submit.submitter", body))[""]


def test_request_without_user_id_is_rejected(ask, manned_house):
    # when the sender does not say who it is
    answer = ask("submit.submitter", json.dumps(manned_house.spec()).encode(), user_id=None)
    # then it is told which property to set
    assert "user_id" in errors(answer)["user_id"]


def test_query_nobody_knows_is_rejected(ask):
    assert "no query 'weather'" in errors(ask("query", b'{"what": "weather"}'))["weather"]


def test_abort_of_a_job_that_is_not_there_is_rejected(ask):
    assert "no running job 'nothing'" in errors(ask("abort.nothing", b""))["job"]


def test_same_message_twice_makes_one_job(manned_house):
    # given a spec published twice under one message id, as a client does that missed the confirm
    spec = json.dumps(manned_house.spec(name="twice")).encode()
    asked = pika.BasicProperties(user_id="submitter", message_id="the-same")
    connection = pika.BlockingConnection(lasting(manned_house.running.url("submitter")))
    for _ in range(2):
        connection.channel().basic_publish("fedbus.jobs", "submit.submitter", spec, asked)
    connection.close()
    # when a later request was answered
    manned_house.aggregator.wait_for("job-submitted")
    jobs = [row for row in manned_house.ask(lambda client: client.jobs()) if row.name == "twice"]
    # then there is one job
    assert len(jobs) == 1


def test_task_that_no_site_has_leaves_the_job_waiting_with_the_reason(house):
    # given a site
    house.start_aggregator()
    house.start_site("cleveland")
    # when a job asks for a task that is not installed there
    job = house.submit(task="mri")
    house.aggregator.wait_for("site-declined", job=job)
    # then the job waits and says who declined and why, and until when it waits
    said = house.aggregator.wait_for("job-waiting", job=job)["text"]
    assert said.startswith("no site is left to take part: cleveland: task 'mri' is not installed here")
    assert said.endswith(" unless a site comes")
    row = house.job(job)
    assert row["state"] == JobState.WAITING
    assert row["says"].startswith("no site is left to take part: cleveland: ")
