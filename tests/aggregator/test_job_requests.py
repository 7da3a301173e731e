"""What submitters ask, as any AMQP client may send it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedbus.aggregator.desk import requests
from fedbus.bus.envelope import Envelope
from fedbus.core.protocol.answers import Rejected, to_json
from fedbus.core.protocol.messages import check_name
from fedbus.core.spec.text import MAX_TEXT_BYTES
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError

SPEC: dict[str, Any] = {
    "name": "heart",
    "task": "heart_disease",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 9},
}


def envelope(body: bytes) -> Envelope:
    return Envelope(exchange="fedbus.jobs", routing_key="submit.ana", type="", body=body, message_id="m1")


def spec(name: str = "heart") -> TrainingSpec:
    return TrainingSpec.parse({**SPEC, "name": name})


def test_a_job_spec_is_json_and_needs_no_header_of_ours() -> None:
    assert requests.spec_of(envelope(json.dumps(SPEC).encode())) == spec()


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_an_empty_body_is_an_empty_object(body: bytes) -> None:
    assert requests.body_of(envelope(body)) == {}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "the body is not JSON"),
        (b"\xff\xfe\xfd", "the body is not JSON"),
        (b"name: heart", "the body is not JSON"),
        (b"[1, 2]", "the body must be a JSON object, got a list"),
        (b"null", "the body must be a JSON object, got a NoneType"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"reason": NaN}', "the body is not JSON"),
        (b'{"reason": "\\ud800"}', "the body is not JSON"),
        (b'{"reason": ' + b"1" * 5000 + b"}", "the body is not JSON"),
        (b'{"reason": "' + b"x" * MAX_TEXT_BYTES + b'"}', "the body has 1048590 bytes, at most 1048576 are read"),
    ],
)
def test_a_body_that_is_no_json_object_is_a_problem_without_a_path(body: bytes, says: str) -> None:
    with pytest.raises(JobSpecError) as caught:
        requests.body_of(envelope(body))
    (problem,) = caught.value.problems
    assert problem.path == ""
    assert problem.message.startswith(says)


def test_every_problem_of_a_spec_is_answered_with_its_path() -> None:
    wrong = {**SPEC, "local": {"steps": 0, "batch_size": 1}, "colour": "blue"}
    with pytest.raises(JobSpecError) as caught:
        requests.spec_of(envelope(json.dumps(wrong).encode()))
    answer = to_json(Rejected(errors=caught.value.problems))
    assert {e["path"] for e in answer["rejected"]["errors"]} == {"local.steps", "local.learning_rate", "colour"}
    assert all(e["message"] for e in answer["rejected"]["errors"])
    json.dumps(answer, allow_nan=False)


def test_the_same_message_gives_the_same_job_and_another_one_another() -> None:
    assert requests.job_id(spec(), "m1") == requests.job_id(spec(), "m1")
    assert requests.job_id(spec(), "m1") != requests.job_id(spec(), "m2")
    assert requests.job_id(spec(), "m1").startswith("heart-")


@pytest.mark.parametrize("name", ["a", "a" * 31, "a" * 40, "-" * 40, "a" * 30 + "-b"])
@pytest.mark.parametrize("message_id", ["", "m1", "Größe", "x" * 255])
def test_a_job_id_is_a_name_for_queues_whatever_the_job_and_the_message_are_called(name: str, message_id: str) -> None:
    job = requests.job_id(spec(name), message_id)
    assert check_name("job", job) == job
