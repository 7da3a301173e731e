from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.errors import SignatureError
from fedbus.trust import signing
from fedbus.trust.authority import Authority
from fedbus.trust.identity import Identity, Verifier
from fedbus.trust.sealing import framed
from fedbus.trust.signing import MOST_REMEMBERED, NS, Carrier, Repeats, Signed, check, sign, statement
from fedbus.trust.subjects import Role, Subject
from tests.small_federation import subject, write_kit

NOW = datetime.now(UTC)
AT = 1_772_366_400 * NS
HOUR = timedelta(hours=1)
OFFER = Carrier(
    exchange="fedbus.control",
    routing_key="site.mercy",
    type="offer",
    message_id="m-1",
    correlation_id="c-1",
    headers={"schema": 1, "job": "heart-1"},
    body=b"{}",
)


@pytest.fixture(scope="module")
def aggregator(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return made(authority, tmp_path_factory.mktemp("kits") / "aggregator", subject("aggregator", Role.AGGREGATOR))


@pytest.fixture(scope="module")
def verifier(authority: Authority) -> Verifier:
    return Verifier("hearts", [authority.certificate])


def made(authority: Authority, kit: Path, whom: Subject) -> Identity:
    write_kit(kit, authority, whom)
    return Identity.load(kit)


def signed(identity: Identity, carrier: Carrier = OFFER) -> Carrier:
    return dataclasses.replace(carrier, headers={**carrier.headers, **sign(identity, carrier, at_ns=AT)})


def read(verifier: Verifier, carrier: Carrier, *, role: Role = Role.AGGREGATOR, name: str = "") -> Signed:
    return check(verifier, carrier, federation="hearts", role=role, name=name)


def test_statement_bytes() -> None:
    said = statement(dataclasses.replace(OFFER, headers={"traceparent": "00-1"}), federation="hearts", at_ns=7)

    assert said == framed(
        "fedbus/message/1",
        1,
        "hearts",
        "fedbus.control",
        "site.mercy",
        "offer",
        "m-1",
        "c-1",
        7,
        bytes.fromhex("44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),  # SHA-256 of {}
        framed("headers"),
    )


def test_who_signed_is_known(aggregator: Identity, verifier: Verifier) -> None:
    found = read(verifier, signed(aggregator), name="aggregator")

    assert found == Signed(subject=aggregator.subject, fingerprint=aggregator.fingerprint, at_ns=AT)


def test_what_the_broker_and_the_trace_add_is_not_signed(aggregator: Identity, verifier: Verifier) -> None:
    came = signed(aggregator)
    came = dataclasses.replace(came, headers={**came.headers, "x-stream-offset": 7, "traceparent": "00-2"})

    assert read(verifier, came).subject.name == "aggregator"


@pytest.mark.parametrize(
    "change",
    [
        {"exchange": "fedbus.events"},
        {"routing_key": "site.ucsf"},
        {"type": "receipt"},
        {"message_id": "m-2"},
        {"correlation_id": ""},
        {"body": b"[]"},
        {"schema": 2},
        {"schema": "1"},
        {"job": "heart-2"},
        {"digest": "more"},
        {"at": str(AT + 1)},
    ],
)
def test_whatever_is_changed_it_is_refused(aggregator: Identity, verifier: Verifier, change: dict[str, object]) -> None:
    came = signed(aggregator)
    fields = {key: value for key, value in change.items() if hasattr(came, key)}
    headers = {**came.headers, **{key: value for key, value in change.items() if key not in fields}}

    with pytest.raises(SignatureError, match="does not fit"):
        read(verifier, dataclasses.replace(came, **(fields | {"headers": headers})))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("at", None, "is not signed"),
        ("at", 7, "a time in nanoseconds"),
        ("at", "007", "a time in nanoseconds"),
        ("at", "1" * 40, "a time in nanoseconds"),
        ("suite", None, "is not signed"),
        ("certificate", None, "is not signed"),
        ("signature", None, "expected a signature of the role aggregator"),
        ("suite", 2, "suite 2 is unknown"),
        ("suite", "1", "unknown"),
        ("certificate", "?", "no base64"),
        ("certificate", "A" * 7000, "at most 6000"),
        ("certificate", "AAAA", "no certificate"),
        ("signature", 5, "must be base64"),
        ("signature", "AAAA", "does not fit"),
    ],
)
def test_headers_of_no_signature_are_refused(
    aggregator: Identity, verifier: Verifier, key: str, value: str | int | None, words: str
) -> None:
    headers = {**signed(aggregator).headers, key: value}
    if value is None:
        del headers[key]

    with pytest.raises(SignatureError, match=words):
        read(verifier, dataclasses.replace(OFFER, headers=headers))  # type: ignore[arg-type]


def test_a_site_signs_no_offer(authority: Authority, verifier: Verifier, tmp_path: Path) -> None:
    site = made(authority, tmp_path / "mercy", subject("mercy"))

    with pytest.raises(SignatureError, match="expected that of the role aggregator"):
        read(verifier, signed(site))
    with pytest.raises(SignatureError, match="expected site ucsf"):
        read(verifier, signed(site), role=Role.SITE, name="ucsf")


def test_another_federation_is_refused(aggregator: Identity, verifier: Verifier) -> None:
    with pytest.raises(SignatureError):
        check(verifier, signed(aggregator), federation="lungs", role=Role.AGGREGATOR)


def test_another_ca_of_the_same_name_is_refused(verifier: Verifier, tmp_path: Path) -> None:
    other = made(Authority.new("hearts", at=NOW), tmp_path / "kit", subject("aggregator", Role.AGGREGATOR))

    with pytest.raises(SignatureError, match="not issued by this federation"):
        read(verifier, signed(other))


@given(
    st.dictionaries(
        st.sampled_from([*signing.HEADERS, "schema"]) | st.text(), st.integers() | st.text() | st.just("AAAA")
    ),
    st.binary(),
    st.text(),
)
def test_whatever_comes_it_is_refused_in_one_way(headers: dict[str, str | int], body: bytes, text: str) -> None:
    carrier = dataclasses.replace(OFFER, headers=headers, body=body, message_id=text)

    with pytest.raises(SignatureError):
        read(Verifier("hearts", []), carrier)


# ------------------------------------------------------------------ repeats


def of(at_ns: int, name: str = "mercy") -> Signed:
    return Signed(subject=subject(name), fingerprint="", at_ns=at_ns)


def test_a_repeat_is_refused_and_what_is_another_is_not() -> None:
    repeats = Repeats(lifetime=HOUR)

    repeats.check(of(AT), "m-1", now_ns=AT)
    repeats.check(of(AT), "m-2", now_ns=AT)
    repeats.check(of(AT, "ucsf"), "m-1", now_ns=AT)
    with pytest.raises(SignatureError, match="came before"):
        repeats.check(of(AT), "m-1", now_ns=AT + NS)


@pytest.mark.parametrize(("off_s", "words"), [(75 * 60 + 1, "4501 s ago"), (-15 * 60 - 1, "901 s in the future")])
def test_what_is_too_old_or_from_the_future_is_refused(off_s: int, words: str) -> None:
    with pytest.raises(SignatureError, match=words):
        Repeats(lifetime=HOUR).check(of(AT), "m-1", now_ns=AT + off_s * NS)


@pytest.mark.parametrize("off_s", [75 * 60, -15 * 60])
def test_clocks_may_be_apart(off_s: int) -> None:
    Repeats(lifetime=HOUR).check(of(AT), "m-1", now_ns=AT + off_s * NS)


def test_what_was_forgotten_counts_as_a_repeat() -> None:
    repeats = Repeats(lifetime=HOUR)
    for i in range(MOST_REMEMBERED + 1):
        repeats.check(of(AT + i), f"m-{i}", now_ns=AT)

    with pytest.raises(SignatureError, match="came before"):
        repeats.check(of(AT), "m-0", now_ns=AT)
    repeats.check(of(AT + 1), "another", now_ns=AT)


def test_memory_is_bounded_by_time_too() -> None:
    repeats = Repeats(lifetime=HOUR)
    repeats.check(of(AT), "m-1", now_ns=AT)

    repeats.check(of(AT + 2 * 3600 * NS), "m-2", now_ns=AT + 2 * 3600 * NS)

    (remembered,) = repeats._signers.values()
    assert len(remembered._heap) == len(remembered._known) == 1
