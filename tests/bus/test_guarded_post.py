"""The post of participants with a kit: the broker's operator, who may publish anything, reads and forges nothing."""

from __future__ import annotations

import dataclasses
import functools
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.aggregator.incoming.admission import admitted
from fedbus.bus import topology as t
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import ControlMessage, Post
from fedbus.core.protocol import messages as m
from fedbus.errors import ProtocolError, SealError, SignatureError
from fedbus.trust.authority import Authority, Revoked
from fedbus.trust.certificates import read_certificate
from fedbus.trust.identity import Identity, Verifier, read_lists
from fedbus.trust.subjects import Role
from tests.bus.test_post import CHUNK, CONTROL, FROM_SITE, UPDATE_MANIFEST, VERSION_CHUNK, VERSION_MANIFEST
from tests.small_federation import subject, write_kit

KEY = bytes(range(32))
RECEIPT = m.Receipt(job="heart", update_id=UPDATE_MANIFEST.update_id, outcome=m.Outcome.FOLDED)
CHUNKS = [dataclasses.replace(CHUNK, index=i, count=3, body=b"frame %d" % i) for i in range(3)]


class Clock:
    """Nanoseconds that the test moves."""

    def __init__(self) -> None:
        self.now = 1_772_366_400 * 10**9

    def __call__(self) -> int:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("hearts", at=datetime.now(UTC))


@pytest.fixture(scope="module")
def identities(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    folder = tmp_path_factory.mktemp("kits")
    whom = [subject("aggregator", Role.AGGREGATOR), subject("mercy"), subject("ucsf", number=1)]
    for each in whom:
        write_kit(folder / each.name, authority, each)
    return {each.name: Identity.load(folder / each.name) for each in whom}


class House:
    """Posts of one federation on one clock, after the first offer."""

    def __init__(self, identities: dict[str, Identity], *, suite: str = "x25519") -> None:
        self.clock = Clock()
        self.aggregator = Post(identities["aggregator"], suite=suite, clock=self.clock)  # type: ignore[arg-type]
        self.mercy = Post(identities["mercy"], clock=self.clock)
        self.ucsf = Post(identities["ucsf"], clock=self.clock)
        for site in (self.mercy, self.ucsf):
            site.from_envelope(self.told(m.JobOffer(job="heart", spec={})))

    def told(self, message: ControlMessage, *, site: str = "mercy") -> Envelope:
        """What arrives of a control message."""
        return arrived(self.aggregator, self.aggregator.control(message, site=site), "aggregator")

    def chunks(self, *, key: bytes = KEY, manifest: m.UpdateManifest = UPDATE_MANIFEST) -> list[Envelope]:
        """What arrives of the chunks of mercy's update."""
        seal = self.mercy.update_seal(manifest, key)
        return [arrived(self.mercy, self.mercy.from_trainer(c, site="mercy", seal=seal), "mercy") for c in CHUNKS]


@pytest.fixture
def house(identities: dict[str, Identity]) -> House:
    return House(identities)


def arrived(post: Post, envelope: Envelope, login: str) -> Envelope:
    """As it went over the wire, with the login that the broker has checked."""
    return dataclasses.replace(post.outgoing(envelope), user_id=login)


# ------------------------------------------------------------------ who may say what


@pytest.mark.parametrize("message", [message for message, _ in FROM_SITE], ids=lambda message: type(message).__name__)
def test_what_a_site_says_is_read_by_the_aggregator(house: House, message: m.Join) -> None:
    came = arrived(house.mercy, house.mercy.from_site(message), "mercy")

    assert house.aggregator.from_login(came) == message


@pytest.mark.parametrize("message", CONTROL, ids=lambda message: type(message).__name__)
def test_what_the_aggregator_says_is_read_by_a_site(house: House, message: m.Receipt) -> None:
    read = house.mercy.from_envelope(house.told(message))

    assert type(read) is type(message)


def test_versions_and_events_are_read(house: House) -> None:
    event = m.Event(at=1.0, job="heart", site="-", kind="job-started", text="")
    said = house.aggregator.to_model_log(VERSION_MANIFEST), house.aggregator.event(event)

    read = [house.mercy.from_envelope(arrived(house.aggregator, each, "aggregator")) for each in said]

    assert read == [VERSION_MANIFEST, event]


@pytest.mark.parametrize("from_kit", [None, "mercy", "ucsf"])
def test_what_is_not_signed_by_the_aggregator_is_no_order(
    house: House, identities: dict[str, Identity], from_kit: str | None
) -> None:
    forger = Post(identities.get(from_kit or ""), clock=house.clock)

    for forged in (
        forger.control(RECEIPT, site="mercy"),
        forger.control(m.JobOffer(job="heart", spec={}), site="mercy"),
        forger.control(m.JobEnded(job="heart", state=m.JobState.ABORTED, reason=""), site="mercy"),
        forger.to_model_log(VERSION_MANIFEST),
        forger.event(m.Event(at=1.0, job="heart", site="-", kind="job-started", text="")),
    ):
        with pytest.raises(SignatureError, match="role aggregator"):
            house.mercy.from_envelope(arrived(forger, forged, "aggregator"))


@pytest.mark.parametrize("from_kit", [None, "ucsf"])
def test_nobody_speaks_for_a_site(house: House, identities: dict[str, Identity], from_kit: str | None) -> None:
    forger = House(identities).ucsf if from_kit else Post()
    said = forger.from_site(m.Leave(site="mercy", session="s"))

    with pytest.raises(SignatureError, match="expected"):
        house.aggregator.from_login(arrived(forger, said, "mercy"))


def test_a_site_says_nothing_of_another_under_its_own_login(house: House) -> None:
    said = house.ucsf.from_site(m.Leave(site="mercy", session="s"))

    with pytest.raises(ProtocolError, match="speaks for site 'mercy'"):
        house.aggregator.from_login(arrived(house.ucsf, said, "ucsf"))


def test_an_order_to_another_site_is_refused(house: House) -> None:
    told = dataclasses.replace(house.told(RECEIPT, site="ucsf"), routing_key="site.mercy")

    with pytest.raises(SignatureError, match="does not fit"):
        house.mercy.from_envelope(told)


def test_a_revoked_site_is_not_heard_any_more(
    house: House, authority: Authority, identities: dict[str, Identity]
) -> None:
    before, leave = house.chunks()[0], m.Leave(site="mercy", session="s")
    house.aggregator.from_envelope(before)
    serial = read_certificate(identities["mercy"].certificate).serial_number
    at = datetime.now(UTC)
    pem = authority.revocation_list([Revoked(serial=serial, since=at)], number=1, at=at)

    house.aggregator.believe(
        identities["aggregator"], Verifier("hearts", [authority.certificate], read_lists(pem, Path("crl.pem")))
    )

    for came in (before, arrived(house.mercy, house.mercy.from_site(leave), "mercy")):
        with pytest.raises(SignatureError, match="revoked"):
            house.aggregator.from_envelope(came)


# ------------------------------------------------------------------ once


def test_an_order_that_comes_again_is_refused(house: House) -> None:
    told = house.told(RECEIPT)
    house.mercy.from_envelope(told)

    with pytest.raises(SignatureError, match="came before"):
        house.mercy.from_envelope(told)


def test_what_was_kept_back_too_long_is_refused(house: House) -> None:
    told, said = house.told(RECEIPT), house.mercy.from_site(m.Leave(site="mercy", session="s"))
    left = arrived(house.mercy, said, "mercy")
    house.clock.pass_s(76 * 60)

    for post, envelope in ((house.mercy, told), (house.aggregator, left)):
        with pytest.raises(SignatureError, match="s ago"):
            post.from_envelope(envelope)


def test_an_order_for_another_site_is_refused(house: House) -> None:
    """The operator moves a signed message to another queue: each says whom it is for."""
    told = house.told(m.JobEnded(job="heart", state=m.JobState.ABORTED, reason="left out"), site="ucsf")

    with pytest.raises(ProtocolError, match=r"key 'site\.ucsf', its own is 'site\.mercy'"):
        house.mercy.from_aggregator(told, site="mercy")
    assert house.ucsf.from_aggregator(told, site="ucsf").job == "heart"  # type: ignore[union-attr]


def test_an_answer_waits_for_an_aggregator_that_is_away_for_days(house: House) -> None:
    answer = m.OfferAnswer(site="mercy", job="heart", accepted=True)
    came = arrived(house.mercy, house.mercy.from_site(answer), "mercy")
    house.clock.pass_s(6 * 86_400)

    assert house.aggregator.from_login(came) == answer
    with pytest.raises(SignatureError, match="came before"):
        house.aggregator.from_login(came)


def test_a_message_that_waited_for_the_broker_is_signed_when_it_goes(house: House) -> None:
    said = house.mercy.from_site(m.Leave(site="mercy", session="s"))
    house.clock.pass_s(10 * 3600)

    assert house.aggregator.from_login(arrived(house.mercy, said, "mercy")) == m.Leave(site="mercy", session="s")


def test_a_log_is_read_again(house: House) -> None:
    came = arrived(house.aggregator, house.aggregator.to_model_log(VERSION_MANIFEST), "aggregator")
    house.clock.pass_s(30 * 86_400)

    assert [house.mercy.from_envelope(came) for _ in range(2)] == [VERSION_MANIFEST] * 2


# ------------------------------------------------------------------ sealed updates


@pytest.mark.parametrize("suite", ["x25519", "mlkem768-x25519"])
def test_the_aggregator_opens_an_update(identities: dict[str, Identity], suite: str) -> None:
    house = House(identities, suite=suite)
    manifest = arrived(house.mercy, house.mercy.from_trainer(UPDATE_MANIFEST, site="mercy"), "mercy")

    assert [house.aggregator.from_envelope(each) for each in house.chunks()] == CHUNKS
    assert house.aggregator.from_envelope(manifest) == UPDATE_MANIFEST


def test_the_operator_reads_nothing_of_what_is_sealed(house: House, identities: dict[str, Identity]) -> None:
    score = m.ScoreAnswer(site="mercy", job="heart", version=1, metrics={"recall": 0.25}, num_examples=1)
    sealed = [
        *house.chunks(),
        arrived(house.mercy, house.mercy.from_trainer(UPDATE_MANIFEST, site="mercy"), "mercy"),
        arrived(house.mercy, house.mercy.from_site(score), "mercy"),
    ]

    assert not any(word in each.body for each in sealed for word in (b"frame", b"num_examples", b"recall"))
    for stranger in (house.ucsf, Post(identities["aggregator"], clock=house.clock)):  # the key, and not the name
        with pytest.raises(ProtocolError):
            stranger.from_envelope(sealed[0])


def test_a_chunk_is_the_same_bytes_whenever_it_is_sent(house: House) -> None:
    assert [each.body for each in house.chunks()] == [each.body for each in house.chunks()]


def test_an_update_that_waited_for_another_key_of_the_aggregator_is_the_same_bytes(
    house: House, identities: dict[str, Identity]
) -> None:
    before = house.chunks()
    house.aggregator = Post(identities["aggregator"], clock=house.clock)  # its seal key is lost
    with pytest.raises(SealError, match="not ours"):
        house.aggregator.from_envelope(before[0])

    house.mercy.from_envelope(house.told(m.JobOffer(job="heart", spec={})))

    assert [each.body for each in house.chunks()] == [each.body for each in before]
    assert [house.aggregator.from_envelope(each) for each in house.chunks()] == CHUNKS


@pytest.mark.parametrize(
    "headers",
    [
        {"job": "heart-2"},
        {"transfer": "mercy:0123abcd:8"},
        {"transfer": "ucsf:0123abcd:7"},
        {"base": 1},
        {"layout": "cd"},
        {"index": 1},
        {"count": 2},
        {"count": 4},
        {"seal": ""},
        {"seal": "AAAA"},
        {"seal": "A" * 5000},
        {"base": "0"},
        {"layout": "a" * 100},
        {"signature": "AAAA"},
        {"suite": 2},
    ],
)
def test_a_chunk_is_of_one_place_in_one_update(house: House, headers: dict[str, str | int]) -> None:
    chunk = house.chunks()[0]

    with pytest.raises((SealError, SignatureError)):
        house.aggregator.from_envelope(dataclasses.replace(chunk, headers={**chunk.headers, **headers}))


HEADER = st.sampled_from(["job", "transfer", "base", "layout", "index", "count", "seal", "certificate", "signature"])


@given(st.dictionaries(HEADER, st.integers() | st.text() | st.just("AAAA"), min_size=1), st.binary(max_size=64))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_whatever_a_chunk_says_it_is_refused_in_one_way(
    house: House, headers: dict[str, str | int], body: bytes
) -> None:
    chunk = house.chunks()[0]
    forged = dataclasses.replace(chunk, headers={**chunk.headers, **headers}, body=body)

    with pytest.raises(ProtocolError):
        house.aggregator.from_envelope(forged)


@pytest.mark.parametrize("header", ["seal", "certificate", "signature", "suite", "base", "layout"])
def test_a_chunk_without_its_key_is_refused(house: House, header: str) -> None:
    chunk = house.chunks()[0]
    headers = {key: value for key, value in chunk.headers.items() if key != header}

    with pytest.raises((SealError, SignatureError)):
        house.aggregator.from_envelope(dataclasses.replace(chunk, headers=headers))


def test_chunks_swapped_cut_mixed_or_flipped_are_refused(house: House) -> None:
    first, second, last = house.chunks()
    other = house.chunks(key=bytes(32))[0]

    def swapped(body: bytes, into: Envelope = first) -> Envelope:
        return dataclasses.replace(into, body=body)

    cut = dataclasses.replace(second, headers={**second.headers, "count": 2})
    flipped = swapped(bytes([first.body[0] ^ 1]) + first.body[1:])
    for forged in (swapped(second.body), swapped(last.body), cut, swapped(other.body), flipped, swapped(b"frame 0")):
        with pytest.raises(SealError, match="does not open"):
            house.aggregator.from_envelope(forged)


def test_the_operator_cannot_seal_in_a_sites_name(house: House, identities: dict[str, Identity]) -> None:
    forger = House(identities).ucsf
    assert forger.guard is not None
    assert house.aggregator.guard is not None
    forger.guard.take_offered(house.aggregator.guard.offered)
    seal = forger.update_seal(UPDATE_MANIFEST, KEY)

    with pytest.raises(SignatureError):
        house.aggregator.from_envelope(
            arrived(forger, forger.from_trainer(CHUNKS[0], site="mercy", seal=seal), "mercy")
        )


def test_another_site_cannot_pass_a_sealed_answer_off_as_its_own(house: House) -> None:
    score = m.ScoreAnswer(site="mercy", job="heart", version=1, metrics={"recall": 0.25}, num_examples=1)
    theirs = arrived(house.mercy, house.mercy.from_site(score), "mercy")
    assert house.ucsf.guard is not None
    stolen = dataclasses.replace(theirs, type="join", headers={"schema": 1}, routing_key="ucsf.answer")
    copied = dataclasses.replace(house.ucsf.outgoing(stolen), user_id="ucsf")

    with pytest.raises(ProtocolError):
        house.aggregator.from_login(copied)


def test_no_chunk_leaves_without_a_seal(house: House) -> None:
    with pytest.raises(ValueError, match="without a seal"):
        house.mercy.from_trainer(CHUNKS[0], site="mercy")


def test_nothing_is_sealed_before_an_offer(identities: dict[str, Identity]) -> None:
    with pytest.raises(SealError, match="told in a job offer"):
        Post(identities["mercy"]).update_seal(UPDATE_MANIFEST, KEY)


def test_an_offer_without_a_seal_key_is_refused(house: House, identities: dict[str, Identity]) -> None:
    post = Post(identities["aggregator"], clock=house.clock)
    plain = Post().control(m.JobOffer(job="heart", spec={}), site="mercy")

    with pytest.raises(SealError, match="expected a seal key"):
        house.mercy.from_envelope(arrived(post, plain, "aggregator"))


def test_a_chunk_of_a_version_is_as_it_was(house: House) -> None:
    came = arrived(house.aggregator, house.aggregator.to_model_log(VERSION_CHUNK), "aggregator")

    assert house.mercy.from_envelope(came) == VERSION_CHUNK


def test_seal_keys_are_kept(identities: dict[str, Identity], tmp_path: Path) -> None:
    posts = [Post(identities["aggregator"], seal_key=tmp_path / "seal.key") for _ in range(2)]

    assert posts[0].guard is not None
    assert posts[1].guard is not None
    assert posts[0].guard.offered == posts[1].guard.offered


def test_without_a_kit_nothing_is_added() -> None:
    post = Post()
    envelope = post.control(m.JobOffer(job="heart", spec={}), site="mercy")

    assert post.outgoing(envelope) is envelope
    assert envelope.body == b'{"job":"heart","spec":{},"submitter":""}'
    assert set(envelope.headers) == {"schema", "traceparent"}


# ------------------------------------------------------------------ the wrong queue


def test_a_chunk_that_is_not_sealed_is_refused_whatever_exchange_it_says_it_came_over(house: House) -> None:
    """What the operator puts into the queue of updates may name any exchange: a version's chunks are not signed."""
    takes = functools.partial(
        admitted, post=house.aggregator, job=CHUNK.job, chunk_bytes=1 << 20, takes_part=lambda site: True
    )
    real, plain = house.chunks()[0], Post().from_trainer(CHUNKS[0], site="mercy")
    assert takes(real) == CHUNKS[0]

    for exchange in (t.UPDATES, t.MODELS, t.CONTROL, t.SITES, t.EVENTS, t.JOBS, ""):
        with pytest.raises(ProtocolError):
            takes(dataclasses.replace(plain, exchange=exchange, user_id="mercy"))


def test_every_reader_refuses_what_was_signed_for_another_exchange(house: House) -> None:
    """A reply, an event or a version is signed by the aggregator too, and is no order."""
    event = house.aggregator.event(m.Event(at=1.0, job="heart", site="-", kind="job-started", text=""))
    reply = dataclasses.replace(house.aggregator.control(RECEIPT, site="mercy"), exchange="")
    version = house.aggregator.to_model_log(VERSION_MANIFEST)
    manifest = arrived(house.mercy, house.mercy.from_trainer(UPDATE_MANIFEST, site="mercy"), "mercy")

    for said in (event, reply, version):
        moved = dataclasses.replace(arrived(house.aggregator, said, "aggregator"), routing_key="site.mercy")
        with pytest.raises(ProtocolError, match=r"expected fedbus\.control"):
            house.mercy.from_aggregator(moved, site="mercy")
    with pytest.raises(ProtocolError, match=r"expected fedbus\.sites"):
        house.aggregator.from_login(manifest)
    with pytest.raises(ProtocolError, match=r"expected fedbus\.models"):
        house.mercy.from_model_log(house.told(RECEIPT), None)
    with pytest.raises(ProtocolError, match=r"expected fedbus\.jobs"):
        house.aggregator.asked(manifest)
