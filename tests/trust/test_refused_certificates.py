"""Who gets in to a broker that runs from provisioned files, and what a session says when somebody does not.

The broker's own words are the same for nearly all of it: a reset.
"""

from __future__ import annotations

import dataclasses
import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from fedbus.bus.connection import LinkState, Session
from fedbus.bus.tls_probe import TlsTrouble, look
from fedbus.bus.url import BrokerUrl
from fedbus.errors import TlsError, UnreachableError
from fedbus.trust.authority import Authority
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role
from tests.small_federation import subject, write_kit

NOW = datetime.now(UTC)
Identify = Callable[..., Identity]


@pytest.fixture
def identify(provisioned, tmp_path) -> Identify:
    """The identity of a kit made like this; without arguments a good one, though not that of any site's daemon."""

    def make(
        name: str = "site-a",
        *,
        at: datetime = NOW,
        of: Authority | None = None,
        role: Role = Role.SITE,
        believe: bytes | None = None,
    ) -> Identity:
        ca = provisioned.folder / "ca"
        authority = of or Authority.read((ca / "1.pem").read_bytes(), (ca / "1.key").read_bytes())
        write_kit(tmp_path / "kit", authority, subject(name, role), at=at)
        identity = Identity.load(tmp_path / "kit", at=at)
        if of is not None:  # it would not check its own kit: it wants in
            shutil.copy(provisioned.folder / "broker" / "ca.pem", tmp_path / "kit" / "ca.pem")
        return identity

    return make


async def refusal(url: str, identity: Identity | None) -> TlsError:
    with pytest.raises(TlsError) as caught:
        async with Session(url, name="test", identity=identity) as session:
            await session.ready()
    return caught.value


async def test_a_certificate_of_the_federation_is_let_in_under_its_own_name(provisioned, identify):
    url = BrokerUrl.parse(provisioned.url("site-a"))
    identity = identify()
    async with Session(provisioned.url("site-a"), name="test", identity=identity) as session:
        await session.ready()
        assert session.login == "site-a"
        assert await look(url, identity.ssl_context(), identity) is None


@pytest.mark.parametrize(
    ("made", "trouble", "says"),
    [
        ({"at": NOW - timedelta(days=60)}, TlsTrouble.EXPIRED, "expired on"),
        ({"at": NOW + timedelta(days=1)}, TlsTrouble.NOT_YET_VALID, "is not valid before"),
        ({"name": "broker", "role": Role.BROKER}, TlsTrouble.WRONG_USE, "it is made for another use"),
        ({"name": "nobody"}, TlsTrouble.UNKNOWN_NAME, "the broker has no login 'nobody'"),
        ({"of": Authority.new("hearts", at=NOW)}, TlsTrouble.OTHER_CA, "is not of the CA in"),
    ],
    ids=["expired", "not yet valid", "the server's as a client's", "of nobody", "another CA of the same name"],
)
async def test_a_certificate_is_refused_and_the_reason_said(provisioned, identify, made, trouble, says):
    error = await refusal(provisioned.url("site-a"), identify(**made))
    assert error.kind == trouble
    assert says in str(error)


async def test_the_brokers_own_certificate_lets_nobody_in(provisioned):
    error = await refusal(provisioned.url("site-a"), Identity.load(provisioned.folder / "broker"))
    assert error.kind == TlsTrouble.WRONG_USE


async def test_a_password_without_a_certificate_is_told_to_use_a_kit(provisioned, monkeypatch):
    # given a system that trusts the federation's CA
    monkeypatch.setenv("SSL_CERT_FILE", str(provisioned.folder / "broker" / "ca.pem"))
    url = provisioned.url("site-a").replace("amqps://", "amqps://site-a:open-sesame@")
    error = await refusal(url, None)
    assert error.kind == TlsTrouble.NO_CERTIFICATE
    assert "set FEDBUS_KIT" in str(error)
    assert "sesame" not in str(error)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_before_1_2_is_refused(provisioned, identify):
    identity = identify()
    old = identity.ssl_context()
    old.minimum_version, old.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    found = await look(BrokerUrl.parse(provisioned.url("site-a")), old, identity)
    assert found is not None
    assert found.trouble == TlsTrouble.VERSION


async def test_plain_amqp_is_told_that_the_broker_speaks_tls_alone(provisioned):
    port = BrokerUrl.parse(provisioned.url("site-a")).port
    with pytest.raises(UnreachableError, match="a broker that speaks TLS alone"):
        async with Session(f"amqp://a:b@127.0.0.1:{port}/", name="test", give_up_after=timedelta(0)) as session:
            await session.ready()


# ------------------------------------------------------------------ what changes while a broker runs


async def test_a_certificate_that_was_renewed_on_disk_is_shown_at_the_next_connect(provisioned, identify, tmp_path):
    # given a session whose certificate has expired, and is refused again and again
    identity = identify(at=NOW - timedelta(days=60))
    states: list[LinkState] = []
    session = Session(
        provisioned.url("site-a"),
        name="test",
        identity=identity,
        retry_login=True,
        on_state=lambda state, _: states.append(state) or renew_once(),
    )
    good = provisioned.kit("site-a")

    def renew_once() -> None:
        # when the kit has another certificate (and key, for this test has no CA at hand)
        if states == [LinkState.REFUSED]:
            for name in ("key.pem", "cert.pem"):
                shutil.copy(good / name, tmp_path / "kit" / name)

    # then the same session logs in by it
    async with session:
        await session.ready()
    assert states == [LinkState.REFUSED, LinkState.CONNECTED]


async def test_a_kit_that_cannot_be_read_any_more_is_said(provisioned, identify, tmp_path):
    identity = dataclasses.replace(identify(), kit=tmp_path / "gone")
    error = await refusal(provisioned.url("site-a"), identity)
    assert error.kind == "kit"
    assert str(tmp_path / "gone") in str(error)
