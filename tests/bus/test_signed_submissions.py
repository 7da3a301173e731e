"""What a submitter has signed, at the sites that are offered it: the aggregator may hand on whatever it likes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.bus import topology as t
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import ProtocolError, SignatureError
from fedbus.trust.authority import Authority
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role
from tests.small_federation import subject, write_kit

DAY_NS = 86_400 * 10**9
SPEC = {
    "name": "heart",
    "task": "t",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 9},
}


class House:
    """alice, bob and mercy of one federation, and its aggregator."""

    def __init__(self, folder: Path) -> None:
        authority = Authority.new("hearts", at=datetime.now(UTC))
        whom = [subject("aggregator", Role.AGGREGATOR), subject("mercy")]
        whom += [subject(name, Role.SUBMITTER) for name in ("alice", "bob")]
        for each in whom:
            write_kit(folder / each.name, authority, each)
        self.posts = {each.name: Post(Identity.load(folder / each.name)) for each in whom}

    def asked(self, login: str, *, key: str, body: dict[str, Any], type: str = "submit") -> m.SignedSubmission:
        """What the aggregator has of a request."""
        said = Envelope(exchange=t.JOBS, routing_key=key, type=type, body=wire.to_json(body), message_id="m-1")
        sent = dataclasses.replace(self.posts[login].outgoing(said), user_id=login)
        signed = self.posts["aggregator"].asked(sent)
        assert signed is not None
        return signed


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("kits"))


def offer(signed: m.SignedSubmission, *, submitter: str = "alice", **changed: Any) -> m.JobOffer:
    spec = TrainingSpec.parse(SPEC)
    job = m.id_of_submit("heart", "m-1")
    whole: dict[str, Any] = {"job": job, "spec": spec.to_offer(), "submitter": submitter, "submission": signed}
    return m.JobOffer(**{**whole, **changed})


def test_what_alice_has_submitted_is_hers(house: House) -> None:
    signed = house.asked("alice", key="submit.alice", body=SPEC)
    assert house.posts["mercy"].submission(offer(signed)).submitter == "alice"


@pytest.mark.parametrize("submitter", ["bob", "", "A B"])
def test_it_is_nobody_elses(house: House, submitter: str) -> None:
    signed = house.asked("alice", key="submit.alice", body=SPEC)
    with pytest.raises(SignatureError):
        house.posts["mercy"].submission(offer(signed, submitter=submitter))


def test_a_submit_is_signed_by_the_login_that_its_key_names(house: House) -> None:
    with pytest.raises(SignatureError, match="under its own key"):
        house.asked("alice", key="submit.bob", body=SPEC)


@pytest.mark.parametrize("key", ["query", "abort.heart", "submit"])
def test_what_was_no_submit_of_the_signer_makes_no_job(house: House, key: str) -> None:
    """An abort or a query, whatever its body says."""
    signed = house.asked("alice", key=key, body=SPEC)
    with pytest.raises(SignatureError):
        house.posts["mercy"].submission(offer(signed))


ANY = st.integers() | st.text() | st.sampled_from(["\ud800", "submit.alice", "AAAA", "heart"])
FIELD = st.sampled_from(["routing_key", "type", "message_id", "correlation_id", "body"])


@given(
    st.dictionaries(FIELD, st.text() | st.sampled_from(["\ud800", "{}", "[" * 9999, json.dumps(SPEC)])),
    st.dictionaries(st.sampled_from(["suite", "at", "certificate", "signature", "job", "x"]), ANY),
)
def test_whatever_an_offer_brings_is_a_submit_or_refused(
    house: House, fields: dict[str, str], headers: dict[str, str | int]
) -> None:
    real = house.asked("alice", key="submit.alice", body=SPEC)
    forged = dataclasses.replace(real, **fields, headers={**real.headers, **headers})
    with contextlib.suppress(ProtocolError):
        assert house.posts["mercy"].submission(offer(forged)).submitter == "alice"
        assert forged.body == real.body


@given(st.binary(max_size=200), st.sampled_from([t.JOBS, t.CONTROL, "", "x"]), ANY, ANY)
def test_whatever_comes_as_a_request_is_signed_or_refused(
    house: House, body: bytes, exchange: str, at: str | int, certificate: str | int
) -> None:
    said = Envelope(exchange=t.JOBS, routing_key="query", type="query", body=body, message_id="m-2")
    sent = dataclasses.replace(house.posts["alice"].outgoing(said), user_id="alice")
    forged = dataclasses.replace(
        sent, exchange=exchange, headers={**sent.headers, "at": at, "certificate": certificate}
    )
    with pytest.raises(ProtocolError):
        house.posts["aggregator"].asked(forged)


def test_a_submit_that_was_kept_back_for_long_makes_no_job(house: House) -> None:
    """The operator holds it back until nobody thinks of it any more."""
    said = Envelope(exchange=t.JOBS, routing_key="submit.alice", type="submit", body=wire.to_json(SPEC), message_id="m")
    sent, now = dataclasses.replace(house.posts["alice"].outgoing(said), user_id="alice"), time.time_ns()
    guard = house.posts["aggregator"].guard
    assert guard is not None

    def asked_after(days: int) -> Post:
        post = Post(guard.identity, clock=lambda: now + days * DAY_NS)
        post.asked(sent)
        return post

    assert asked_after(0)
    assert asked_after(6)
    with pytest.raises(SignatureError, match="send it anew"):
        asked_after(8)
