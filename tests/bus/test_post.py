"""Where every message goes, how long it lives, and who may have sent it (DESIGN 4)."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from fedbus.bus.envelope import Envelope
from fedbus.bus.post import MAX_SITE_MESSAGE_BYTES, ControlMessage, Post, SiteMessage
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.statistics import Plan
from fedbus.errors import DecodeError, ProtocolError

POST = Post()
UPDATE = "mercy:0123abcd:7"
CHUNK = m.Chunk(job="heart", transfer=UPDATE, part="update", index=3, count=9, body=b"frame")
UPDATE_MANIFEST = m.UpdateManifest(
    job="heart",
    update_id=UPDATE,
    kind=m.UpdateKind.DELTA,
    base_version=0,
    effort=Effort(num_examples=1),
    layout_digest="ab",
    frames=9,
    body_bytes=45,
)
VERSION_CHUNK = m.Chunk(job="heart", transfer="4", part="delta", index=3, count=9, body=b"frame")
VERSION_MANIFEST = m.VersionManifest(
    job="heart", version=4, digest="cd", delta=None, snapshot=None, snapshot_version=0, snapshot_at=0.0
)
STATUS = m.SiteStatus(site="mercy", session="s", lease_s=30.0)
FROM_SITE: list[tuple[SiteMessage, str]] = [
    (m.Join(site="mercy", session="s", tasks=(), fedbus_version="0.1.0"), "mercy.join"),
    (STATUS, "mercy.status"),
    (m.Leave(site="mercy", session="s"), "mercy.leave"),
    (m.OfferAnswer(site="mercy", job="heart", accepted=True), "mercy.answer"),
    (m.ScoreAnswer(site="mercy", job="heart", version=1, metrics={}, num_examples=1), "mercy.answer"),
    (m.StatisticsAnswer(site="mercy", job="heart", asked="0a"), "mercy.answer"),
    (m.ResyncRequest(site="mercy", job="heart", reason="gap"), "mercy.answer"),
    (m.TrainerTrouble(site="mercy", job="heart", error="died", restarts=1), "mercy.answer"),
]
CONTROL: list[ControlMessage] = [
    m.RollCall(session="a"),
    m.JobOffer(job="heart", spec={}),
    m.InitialParamsRequest(job="heart"),
    m.JobStarted(job="heart", session="0a"),
    m.Receipt(job="heart", update_id=UPDATE, outcome=m.Outcome.FOLDED),
    m.StepBudget(job="heart", steps=20),
    m.ResendRequest(job="heart", update_id=UPDATE),
    m.ScoreRequest(job="heart", version=1),
    m.StatisticsRequest(job="heart", id="0a", plan=Plan()),
    m.JobEnded(job="heart", state=m.JobState.FINISHED, reason="done"),
    m.JobForgotten(job="heart"),
    m.CertificateRenewed(site="site-a", certificate="PEM"),
    m.RevocationLists(lists="PEM"),
]


def named(value: object) -> str:
    return type(value).__name__ if dataclasses.is_dataclass(value) else str(value)


def arrived(envelope: Envelope, user_id: str | None) -> Envelope:
    """As the broker delivers it: with the login that it has checked."""
    return dataclasses.replace(envelope, user_id=user_id)


# ------------------------------------------------------------------ addresses


@pytest.mark.parametrize(("message", "key"), FROM_SITE, ids=named)
def test_what_a_site_says_goes_to_the_sites_exchange_under_its_own_name(message: SiteMessage, key: str) -> None:
    envelope = POST.from_site(message)
    assert (envelope.exchange, envelope.routing_key) == ("fedbus.sites", key)


def test_only_a_status_goes_stale() -> None:
    lives = {type(message): POST.from_site(message).expiration for message, _ in FROM_SITE}
    assert lives.pop(m.SiteStatus) == timedelta(seconds=60)
    assert set(lives.values()) == {None}


@pytest.mark.parametrize(("message", "id_"), [(CHUNK, f"{UPDATE}/3"), (UPDATE_MANIFEST, UPDATE)], ids=named)
def test_an_update_goes_to_its_job_with_the_site_in_the_key(message: m.Chunk | m.UpdateManifest, id_: str) -> None:
    envelope = POST.from_trainer(message, site="mercy")
    assert (envelope.exchange, envelope.routing_key) == ("fedbus.updates", "heart.mercy")
    assert (envelope.message_id, envelope.expiration) == (id_, None)


@pytest.mark.parametrize(
    ("message", "id_"), [(VERSION_CHUNK, "heart/4/delta/3"), (VERSION_MANIFEST, "heart/4")], ids=named
)
def test_a_version_goes_to_the_model_log_of_its_job(message: m.Chunk | m.VersionManifest, id_: str) -> None:
    envelope = POST.to_model_log(message)
    assert (envelope.exchange, envelope.routing_key) == ("fedbus.models", "heart")
    assert (envelope.message_id, envelope.expiration) == (id_, None)


@pytest.mark.parametrize("message", CONTROL, ids=named)
@pytest.mark.parametrize(("site", "key"), [(None, "all"), ("mercy", "site.mercy")])
def test_control_goes_to_all_or_to_one_site_and_expires_in_an_hour(
    message: ControlMessage, site: str | None, key: str
) -> None:
    envelope = POST.control(message, site=site)
    assert (envelope.exchange, envelope.routing_key) == ("fedbus.control", key)
    assert envelope.expiration == timedelta(hours=1)


@pytest.mark.parametrize(("job", "site", "key"), [("heart", "mercy", "heart.mercy.x"), ("-", "-", "-.-.x")])
def test_an_event_can_be_filtered_by_job_site_and_kind(job: str, site: str, key: str) -> None:
    envelope = POST.event(m.Event(at=0.0, job=job, site=site, kind="x", text="t"))
    assert (envelope.exchange, envelope.routing_key, envelope.expiration) == ("fedbus.events", key, None)


def test_every_message_type_has_an_address() -> None:
    addressed = {type(message) for message, _ in FROM_SITE} | {type(message) for message in CONTROL}
    assert addressed | {m.Chunk, m.UpdateManifest, m.VersionManifest, m.Event} == set(wire.TYPES.values())


def test_a_chunk_sent_again_has_the_same_message_id_and_other_messages_have_their_own() -> None:
    first, again = POST.from_trainer(CHUNK, site="mercy"), POST.from_trainer(CHUNK, site="mercy")
    assert (first.message_id, first.body) == (again.message_id, again.body)
    assert POST.from_site(STATUS).message_id != POST.from_site(STATUS).message_id


@pytest.mark.parametrize("message", [*(message for message, _ in FROM_SITE), *CONTROL], ids=named)
def test_an_envelope_holds_the_bytes_of_the_wire(message: SiteMessage | ControlMessage) -> None:
    site_says = isinstance(message, SiteMessage)
    envelope = POST.from_site(message) if site_says else POST.control(message, site=None)  # type: ignore[arg-type]
    assert (envelope.type, envelope.body, envelope.content_type) == (
        wire.encode(message).type,
        wire.encode(message).body,
        "application/json",
    )
    assert POST.from_envelope(arrived(envelope, "somebody")) == message


def test_the_body_of_a_chunk_is_not_copied() -> None:
    assert POST.from_trainer(CHUNK, site="mercy").body is CHUNK.body


ENVELOPES: list[tuple[Envelope, Envelope]] = [
    (
        POST.from_site(m.Leave(site="mercy", session="s", reason="over")),
        Envelope(
            exchange="fedbus.sites",
            routing_key="mercy.leave",
            type="leave",
            body=b'{"reason":"over","session":"s","site":"mercy"}',
            message_id="",
            content_type="application/json",
            headers={"schema": 1},
        ),
    ),
    (
        POST.from_trainer(CHUNK, site="mercy"),
        Envelope(
            exchange="fedbus.updates",
            routing_key="heart.mercy",
            type="chunk",
            body=b"frame",
            message_id="mercy:0123abcd:7/3",
            content_type="application/vnd.fedbus.frame",
            headers={"schema": 1, "job": "heart", "transfer": UPDATE, "part": "update", "index": 3, "count": 9},
        ),
    ),
    (
        POST.to_model_log(VERSION_CHUNK),
        Envelope(
            exchange="fedbus.models",
            routing_key="heart",
            type="chunk",
            body=b"frame",
            message_id="heart/4/delta/3",
            content_type="application/vnd.fedbus.frame",
            headers={"schema": 1, "job": "heart", "transfer": "4", "part": "delta", "index": 3, "count": 9},
        ),
    ),
    (
        POST.control(m.StepBudget(job="heart", steps=20), site="mercy"),
        Envelope(
            exchange="fedbus.control",
            routing_key="site.mercy",
            type="step-budget",
            body=b'{"job":"heart","steps":20}',
            message_id="",
            content_type="application/json",
            headers={"schema": 1},
            expiration=timedelta(hours=1),
        ),
    ),
    (
        POST.event(m.Event(at=0.5, job="heart", site="mercy", kind="x", text="t")),
        Envelope(
            exchange="fedbus.events",
            routing_key="heart.mercy.x",
            type="event",
            body=b'{"at":0.5,"facts":{},"job":"heart","kind":"x","site":"mercy","text":"t"}',
            message_id="",
            content_type="application/json",
            headers={"schema": 1},
        ),
    ),
]


@pytest.mark.parametrize(("envelope", "expected"), ENVELOPES, ids=[expected.type for _, expected in ENVELOPES])
def test_an_envelope_is_the_same_to_the_byte_in_every_release(envelope: Envelope, expected: Envelope) -> None:
    headers = {**expected.headers, "traceparent": envelope.headers["traceparent"]}  # a part of it is drawn at random
    message_id = expected.message_id or envelope.message_id
    assert envelope == dataclasses.replace(expected, message_id=message_id, headers=headers)


# ------------------------------------------------------------------ senders


@pytest.mark.parametrize("user_id", [None, ""])
def test_a_message_that_does_not_say_who_sent_it_is_refused(user_id: str | None) -> None:
    with pytest.raises(ProtocolError, match="'status' has no user_id"):
        POST.from_envelope(arrived(POST.from_site(STATUS), user_id))
    with pytest.raises(ProtocolError, match="has no user_id"):
        POST.from_login(arrived(POST.from_site(STATUS), user_id))


@pytest.mark.parametrize(("message", "_"), FROM_SITE, ids=named)
def test_a_site_speaks_for_itself(message: SiteMessage, _: str) -> None:
    assert POST.from_login(arrived(POST.from_site(message), "mercy")) == message


@pytest.mark.parametrize(("message", "_"), FROM_SITE, ids=named)
def test_a_site_that_speaks_for_another_is_refused(message: SiteMessage, _: str) -> None:
    with pytest.raises(ProtocolError, match="login 'ucsf' speaks for site 'mercy'"):
        POST.from_login(arrived(POST.from_site(message), "ucsf"))


@pytest.mark.parametrize("message", CONTROL, ids=named)
def test_what_only_the_aggregator_says_is_refused_from_a_site(message: ControlMessage) -> None:
    with pytest.raises(DecodeError, match=r"does not belong on fedbus\.sites"):
        POST.from_login(arrived(POST.control(message, site=None), "mercy"))


def test_a_site_that_says_too_much_is_refused() -> None:
    trouble = m.TrainerTrouble(site="mercy", job="heart", error="x" * MAX_SITE_MESSAGE_BYTES, restarts=1)
    with pytest.raises(ProtocolError, match="a site says at most 262144"):
        POST.from_login(arrived(POST.from_site(trouble), "mercy"))


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(DecodeError):
        POST.from_envelope(dataclasses.replace(arrived(POST.from_site(STATUS), "mercy"), body=b"\x00"))


def test_everything_about_one_update_shares_a_trace() -> None:
    chunk = m.Chunk(job="heart", transfer="mercy:0a0b0c0d:7", part="update", index=0, count=1, body=b"frame")
    receipt = m.Receipt(job="heart", update_id="mercy:0a0b0c0d:7", outcome=m.Outcome.FOLDED)
    other = m.Receipt(job="heart", update_id="mercy:0a0b0c0d:8", outcome=m.Outcome.FOLDED)

    sent = [
        POST.from_trainer(chunk, site="mercy"),
        POST.control(receipt, site="mercy"),
        POST.control(other, site="mercy"),
    ]

    first, second, third = (str(envelope.headers["traceparent"]).split("-") for envelope in sent)
    assert first[0] == "00"
    assert first[3] == "01"
    assert first[1] == second[1] != third[1]
    assert first[2] != second[2]
