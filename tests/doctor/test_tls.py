"""TLS that does not come about, at real TLS servers: each cause has words of its own."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server, socket
from threading import Thread

import pytest

from fedbus.bus.url import BrokerUrl
from fedbus.doctor.finding import Finding, Status
from fedbus.doctor.tls import broker_dates, examine_tls
from fedbus.trust.authority import Authority
from fedbus.trust.certificates import certificate_pem, key_pem, new_key
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role
from tests.small_federation import subject, write_kit

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
BROKER = subject("broker", Role.BROKER)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new("hearts", at=NOW - 100 * DAY)


@pytest.fixture
def identity(tmp_path: Path, authority: Authority) -> Identity:
    write_kit(tmp_path / "kit", authority, subject("mercy"))
    return Identity.load(tmp_path / "kit")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Starts a server with a certificate of this authority; without one it never says a word. Returns the port."""
    with ExitStack() as stack:

        def start(
            authority: Authority | None,
            *,
            hosts: tuple[str, ...] = ("localhost", "127.0.0.1"),
            at: datetime = NOW,
            believes: Authority | None = None,
        ) -> int:
            context = None if authority is None else _context(tmp_path, authority, hosts, at, believes or authority)
            server = stack.enter_context(create_server(("127.0.0.1", 0)))
            stack.callback(server.shutdown, 2)
            Thread(target=_accept, args=(server, context), daemon=True).start()
            return int(server.getsockname()[1])

        yield start


def _context(
    folder: Path, authority: Authority, hosts: tuple[str, ...], at: datetime, believes: Authority
) -> ssl.SSLContext:
    key = new_key()
    (folder / "broker.pem").write_bytes(
        certificate_pem(authority.issue(key.public_key(), _broker_of(authority), at=at, hosts=hosts)) + key_pem(key)
    )
    (folder / "believed.pem").write_bytes(certificate_pem(believes.certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "believed.pem"))
    context.load_cert_chain(folder / "broker.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _broker_of(authority: Authority):
    return subject("broker", Role.BROKER, federation=authority.federation)


def _accept(server: socket, context: ssl.SSLContext | None) -> None:
    held = []
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            held.append(connection)
            if context is not None:
                with suppress(OSError):
                    held.append(context.wrap_socket(connection, server_side=True))


def found(port: int, identity: Identity, *, host: str = "localhost", within_s: float = 60) -> list[Finding]:
    url = BrokerUrl.parse(f"amqps://{host}:{port}/fedbus")
    return asyncio.run(examine_tls(url, identity, now=NOW, within_s=within_s))


def test_a_broker_that_is_fine_says_how_long(serve, identity, authority):
    tls, certificate = found(serve(authority), identity)
    assert (tls.status, tls.text.partition(",")[0]) == (Status.OK, "TLSv1.3")
    assert certificate.text.startswith("good for ")


def test_a_broker_of_another_ca_of_the_same_name(serve, identity):
    [tls] = found(serve(Authority.new("hearts", at=NOW)), identity)
    assert (tls.status, "another CA has issued the broker's certificate" in tls.text) == (Status.FAIL, True)


def test_something_that_opens_tls_on_the_way_is_named_by_its_issuer(serve, identity):
    [tls] = found(serve(Authority.new("zscaler", at=NOW)), identity)
    assert "zscaler" in tls.text
    assert "opens TLS" in tls.text


def test_a_broker_of_another_name(serve, identity, authority):
    [tls] = found(serve(authority, hosts=("broker.example.org",)), identity)
    assert "not made for 'localhost'" in tls.text


@pytest.mark.parametrize("at", [NOW - 60 * DAY, NOW + 2 * DAY], ids=["expired", "not yet valid"])
def test_a_broker_whose_certificate_is_not_valid_now(serve, identity, authority, at):
    [tls] = found(serve(authority, at=at), identity)
    assert "the broker's own certificate is not valid now" in tls.text
    assert "clock" in tls.text


def test_a_broker_that_does_not_know_our_ca(serve, identity, authority):
    [tls] = found(serve(authority, believes=Authority.new("hearts", at=NOW)), identity)
    assert "the broker does not take the certificate" in tls.text
    assert "another CA has issued it" in tls.text


def test_something_that_takes_the_connection_and_never_shakes_hands(serve, identity):
    [tls] = found(serve(None), identity, within_s=0.2)
    assert "does not answer the TLS handshake" in tls.text


def test_a_port_without_tls(identity):
    def answer(server: socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.recv(1)
                connection.sendall(b"AMQP\x00\x00\x09\x01")

    with create_server(("127.0.0.1", 0)) as server:
        Thread(target=answer, args=(server,), daemon=True).start()
        [tls] = found(server.getsockname()[1], identity)
        server.shutdown(2)
    assert "speaks no TLS" in tls.text


def test_a_kit_that_lost_a_file_since_it_was_read(serve, identity, authority):
    shutil.rmtree(identity.kit)
    with pytest.raises(Exception, match="cannot be used for TLS"):
        found(serve(authority), identity)


def test_the_brokers_certificate_is_warned_of_before_its_end():
    assert broker_dates(NOW - 25 * DAY, NOW + 5 * DAY, NOW).status is Status.WARN
    assert broker_dates(NOW - 5 * DAY, NOW + 25 * DAY, NOW).status is Status.OK
