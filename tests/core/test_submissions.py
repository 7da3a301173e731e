"""A site takes no job but the one that its submitter has signed, or the one that this asks for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fedbus.core.job.submissions import not_as_submitted
from fedbus.core.protocol.messages import JobOffer, SignedSubmission, id_of_submit
from fedbus.core.spec import kinds
from fedbus.core.spec.cross_site import cross_site_spec

TRAINING = {
    "name": "heart",
    "task": "heart_disease",
    "sites": ["mercy", "ucsf"],
    "min_contributors": 2,
    "local": {"steps": 2, "batch_size": 8, "learning_rate": 0.1},
    "stop": {"versions": 3},
    "evaluate_local": True,
}
JOB = "heart-0011aabb"


def submitted(data: dict[str, Any] | None = None, *, job: str | None = JOB, **keys: Any) -> SignedSubmission:
    """As `fedbus submit` sends it, with every default, or as it stands when it is written by hand."""
    body = json.dumps(kinds.parse(TRAINING | keys).to_dict() if data is None else data)
    headers: dict[str, str | int] = {} if job is None else {"job": job}
    return SignedSubmission(
        routing_key="submit.ann", type="submit", message_id="m-1", correlation_id="", headers=headers, body=body
    )


def offer(job: str = JOB, *, follows: str = "", **keys: Any) -> JobOffer:
    return JobOffer(job=job, spec=kinds.parse(TRAINING | keys).to_offer(), submitter="ann", follows=follows)


def followed(job: str = "cross-site-1", **changes: Any) -> JobOffer:
    """The job that the aggregator makes after the training."""
    spec = cross_site_spec(JOB, TRAINING, best=1, last=3, local=["mercy"], sites=["mercy", "ucsf"]).to_offer()
    return JobOffer(job=job, spec=spec | changes, submitter="ann", follows=JOB)


def test_what_was_submitted_is_offered() -> None:
    assert not_as_submitted(offer(), submitted()) == ""


def test_defaults_need_not_be_written() -> None:
    assert not_as_submitted(offer(), submitted(TRAINING)) == ""


def test_a_job_without_an_id_has_that_of_its_message() -> None:
    assert not_as_submitted(offer(id_of_submit("heart", "m-1")), submitted(job=None)) == ""


def test_keys_of_a_later_release_that_ask_for_nothing_new_are_no_difference() -> None:
    said = kinds.parse(TRAINING).to_dict() | {"a_key_of_tomorrow": 0}

    assert not_as_submitted(offer(), submitted(said)) == ""


@pytest.mark.parametrize(
    "keys",
    [
        {"task": "digits"},
        {"sites": ["mercy"], "min_contributors": 1},
        {"min_contributors": 1},
        {"local": {"steps": 2, "batch_size": 1, "learning_rate": 0.1}},
        {"task_config": {"width": 3}},
        {"seed": 5},
        {"stop": {"versions": 30}},
    ],
)
def test_an_offer_of_something_else_is_seen(keys: dict[str, Any]) -> None:
    assert not_as_submitted(offer(**keys), submitted()) == "the offered job spec is not the signed one"


@pytest.mark.parametrize("job", ["heart-0011aabc", id_of_submit("heart", "m-1")])
def test_a_submit_is_one_job(job: str) -> None:
    assert "signed submit is that of job" in not_as_submitted(offer(job), submitted())


@pytest.mark.parametrize("body", ["", "[]", "{", "[" * 5000, '{"kind": "training"}', '{"kind": 7}', '{"a": 1, "a": 2}'])
def test_a_text_that_is_no_spec_is_no_submit(body: str) -> None:
    assert "cannot be read here" in not_as_submitted(offer(), replace(submitted(), body=body))


def test_an_offer_that_cannot_be_read_is_none() -> None:
    assert "cannot be read here" in not_as_submitted(replace(offer(), spec={"kind": "tomorrow"}), submitted())


def test_the_job_that_follows_a_training_is_asked_for_by_it() -> None:
    assert not_as_submitted(followed(), submitted()) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "digits"},
        {"task_config": {"width": 3}},
        {"seed": 9},
        {"min_sites": 2},
        {"name": "other"},
        {"sites": ["mercy", "utrecht"]},
        {"models": [{"job": "another-11223344", "version": "best"}]},
    ],
)
def test_another_job_than_the_one_that_follows_is_seen(changes: dict[str, Any]) -> None:
    assert "not the job that follows" in not_as_submitted(followed(**changes), submitted())


def test_nothing_follows_a_job_that_does_not_ask_for_it() -> None:
    assert "asks for no job after it" in not_as_submitted(followed(), submitted(evaluate_local=False))
    assert "asks for no job after it" in not_as_submitted(offer("other-1", follows=JOB), submitted())
    assert "submit is that of job" in not_as_submitted(replace(followed(), follows="other-1"), submitted())
