"""What is said when it is this side that does not take the server: another name, another CA, something on the way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedbus.bus.connection import Session
from fedbus.bus.tls_probe import TlsTrouble
from fedbus.errors import SettingsError, TlsError, UnreachableError
from fedbus.trust.authority import Authority
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role
from tests.small_federation import subject, write_kit

NOW = datetime.now(UTC)
# A fatal alert as it stands on the wire, RFC 8446 section 6: record type, version, length, level, description.
PROTOCOL_VERSION, INSUFFICIENT_SECURITY = (bytes([0x15, 3, 1, 0, 2, 2, number]) for number in (70, 71))
OWN = Authority.new("hearts", at=NOW)


@pytest.fixture
def identity(tmp_path) -> Identity:
    write_kit(tmp_path / "site-a", OWN, subject())
    return Identity.load(tmp_path / "site-a")


@pytest.fixture
def context(tmp_path) -> Callable[..., ssl.SSLContext]:
    """Of a server whose certificate is made like this."""

    def make(
        authority: Authority = OWN, *, hosts: tuple[str, ...] = ("localhost",), at: datetime = NOW
    ) -> ssl.SSLContext:
        broker = subject("broker", Role.BROKER, federation=authority.federation)
        write_kit(tmp_path / "server", authority, broker, at=at, hosts=hosts)
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(tmp_path / "server" / "cert.pem", tmp_path / "server" / "key.pem")
        return found

    return make


@asynccontextmanager
async def server(context: ssl.SSLContext | None) -> AsyncIterator[str]:
    """Shakes hands, says nothing, and hangs up: the URL to reach it."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    serving = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with serving:
        yield f"amqps://localhost:{serving.sockets[0].getsockname()[1]}/fedbus"


async def trouble(url: str, identity: Identity) -> TlsError:
    with pytest.raises(TlsError) as caught:
        async with Session(url, name="test", identity=identity, give_up_after=timedelta(0)) as session:
            await session.ready()
    return caught.value


@pytest.mark.parametrize(
    ("made", "kind", "says"),
    [
        ({"hosts": ("broker.example.org",)}, TlsTrouble.BROKER_NAME, "is not made for 'localhost'"),
        ({"at": NOW - timedelta(days=90)}, TlsTrouble.BROKER_DATES, "the broker's own certificate is not valid now"),
        (
            {"authority": Authority.new("hearts", at=NOW)},
            TlsTrouble.BROKER_CA,
            "ask the federation for its present ca.pem",
        ),
        (
            {"authority": Authority.new("inspecting-proxy", at=NOW)},
            TlsTrouble.INSPECTED,
            "a certificate of 'CN=inspecting-proxy CA,O=inspecting-proxy' comes back",
        ),
    ],
    ids=["another name", "expired", "another CA of the same name", "a proxy that inspects"],
)
async def test_a_server_that_is_not_our_broker_is_not_talked_to(identity, context, made, kind, says):
    async with server(context(**made)) as url:
        error = await trouble(url, identity)
    assert error.kind == kind
    assert says in str(error)


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (b"AMQP\x00\x00\x09\x01", TlsTrouble.NO_TLS, "speaks no TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", TlsTrouble.NO_TLS, "speaks no TLS"),
        (PROTOCOL_VERSION, TlsTrouble.VERSION, "share no version of TLS"),
        (INSUFFICIENT_SECURITY, TlsTrouble.VERSION, "or no cipher suite"),
    ],
    ids=["AMQP", "HTTP", "TLS 1.1 alone", "weak ciphers alone"],
)
async def test_a_server_that_speaks_something_else_is_not_talked_to(identity, answer, kind, says):
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(5)
        writer.write(answer)
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as serving:
        error = await trouble(f"amqps://localhost:{serving.sockets[0].getsockname()[1]}/fedbus", identity)
    assert error.kind == kind
    assert says in str(error)


async def test_a_good_server_that_hangs_up_is_no_trouble_of_tls(identity, context):
    async with server(context()) as url:
        with pytest.raises(UnreachableError):
            async with Session(url, name="test", identity=identity, give_up_after=timedelta(0)) as session:
                await session.ready()


# ------------------------------------------------------------------ who logs in


async def test_a_url_without_a_user_asks_for_a_kit():
    with pytest.raises(SettingsError, match="set FEDBUS_KIT"):
        Session("amqps://hub/fedbus", name="test")


async def test_a_kit_and_a_password_are_one_too_many(identity: Identity, tmp_path: Path):
    with pytest.raises(SettingsError, match="logs in by its certificate as 'site-a'") as caught:
        Session("amqps://site-a:open-sesame@hub/fedbus", name="test", identity=identity)
    assert "sesame" not in str(caught.value)
