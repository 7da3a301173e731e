"""A running broker of a provisioned federation: what changes for one login, and that nobody else notices."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPError

from fedbus.broker.node import PrivateNode
from fedbus.broker.process import free_port
from fedbus.broker.provisioned import node_folder
from fedbus.provision.federation import Change, FederationFolder
from fedbus.provision.live import Ctl, reached, tell
from fedbus.provision.participant import unpack
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role
from tests.provisioned_federation import enrol, federation_file

NOW = datetime.now(UTC)


class Running:
    """A federation whose broker runs."""

    def __init__(self, folder: FederationFolder, kits: Path, port: int) -> None:
        self.folder, self.kits, self.port = folder, kits, port

    def tell(self, change: Change) -> None:
        ctl = reached(self.folder, change)
        assert ctl is not None
        tell(self.folder, change, ctl)

    def context(self, kit: str) -> ssl.SSLContext:
        return Identity.load(self.kits / kit).ssl_context()

    def connect(self, kit: str) -> pika.BlockingConnection:
        parameters = pika.ConnectionParameters(
            host="localhost",
            port=self.port,
            virtual_host="fedbus",
            credentials=pika.credentials.ExternalCredentials(),
            ssl_options=pika.SSLOptions(self.context(kit), "localhost"),
            heartbeat=0,
        )
        return pika.BlockingConnection(parameters)

    def publish(self, connection: pika.BlockingConnection, name: str) -> None:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(
            "fedbus.sites", f"{name}.status", b"x", pika.BasicProperties(user_id=name), mandatory=True
        )
        channel.close()

    def may_enter(self, kit: str) -> bool:
        """Whether this kit can log in and publish under its name."""
        try:
            with contextlib.closing(self.connect(kit)) as connection:
                self.publish(connection, Identity.load(self.kits / kit).name)
        except (AMQPError, OSError):
            return False
        return True

    def server_certificate(self, kit: str) -> bytes | None:
        with (
            socket.create_connection(("localhost", self.port)) as raw,
            self.context(kit).wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            return tls.getpeercert(binary_form=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    base, kits = tmp_path_factory.mktemp("federation") / "hearts", tmp_path_factory.mktemp("kits")
    folder, port = FederationFolder(base), free_port()
    folder.provision(federation_file("witness", "mercy", port=port), now=NOW)
    for name in ("witness", "mercy"):
        enrol(folder, kits / name, name, ago=timedelta(minutes=1))
    node = PrivateNode(node_folder(base))
    node.start(provisioned=base, die_with_parent=True)
    yield Running(folder, kits, port)
    node.stop(grace=timedelta(0))
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(autouse=True)
def witness(running: Running) -> Iterator[None]:
    """Another site that publishes throughout, on one connection, which is still the first one at the end."""
    stop, trouble, published = threading.Event(), [], []
    connection = running.connect("witness")

    def work() -> None:
        try:
            while not stop.wait(0.02):
                running.publish(connection, "witness")
                published.append(1)
            connection.close()
        except (AMQPError, OSError) as exc:
            trouble.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()
    assert trouble == []
    assert published


def test_one_that_is_added_gets_in_once_it_has_a_certificate(running: Running) -> None:
    running.tell(running.folder.add("kaiser", Role.SITE, now=NOW))
    enrol(running.folder, running.kits / "kaiser", "kaiser")
    assert running.may_enter("kaiser")
    running.tell(running.folder.add("kaiser", Role.SITE, now=NOW))
    assert running.may_enter("kaiser")


def test_one_that_is_revoked_is_out_at_once_and_its_certificate_for_good(running: Running) -> None:
    # given a site with a connection, and a session of TLS 1.2 that it could take up again
    open_one = running.connect("mercy")
    context = running.context("mercy")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session = _shake_hands(running, context, None)
    # when it is revoked
    running.tell(running.folder.revoke("mercy", now=NOW))
    # then its connection is closed and it does not get in again
    with pytest.raises((AMQPError, OSError)):
        running.publish(open_one, "mercy")
    assert not running.may_enter("mercy")
    # nor after its name is enrolled again with another key, which does
    running.tell(running.folder.add("mercy", Role.SITE, now=NOW))
    enrol(running.folder, running.kits / "mercy-again", "mercy")
    assert running.may_enter("mercy-again")
    assert not running.may_enter("mercy")
    with pytest.raises(ssl.SSLError, match=r"(?i)revoked"):
        _shake_hands(running, context, session)
    # and saying it twice is no error
    running.tell(running.folder.revoke("mercy", now=NOW))
    running.tell(running.folder.revoke("mercy", now=NOW))
    assert not running.may_enter("mercy-again")


class Counted:
    """A rabbitmqctl that counts its starts."""

    def __init__(self, ctl: Ctl) -> None:
        self._ctl, self.told = ctl, list[tuple[str, ...]]()

    def __call__(self, *arguments: str) -> str:
        self.told.append(arguments)
        return self._ctl(*arguments)


def test_putting_one_out_is_one_start_of_rabbitmqctl(running: Running) -> None:
    running.tell(running.folder.add("zurich", Role.SITE, now=NOW))
    enrol(running.folder, running.kits / "zurich", "zurich")
    assert running.may_enter("zurich")
    change = running.folder.revoke("zurich", now=NOW)
    found = reached(running.folder, change)
    assert found is not None
    ctl = Counted(found)
    tell(running.folder, change, ctl)
    assert [command for command, *_ in ctl.told] == ["eval"]
    assert not running.may_enter("zurich")


def _shake_hands(running: Running, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    with (
        socket.create_connection(("localhost", running.port)) as raw,
        context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
    ):
        assert not tls.session_reused
        return tls.session


def test_a_renewed_broker_shows_its_new_certificate_without_a_restart(running: Running) -> None:
    before = running.server_certificate("witness")
    running.tell(running.folder.renew("broker", now=NOW))
    assert running.server_certificate("witness") != before
    assert running.may_enter("witness")


def test_past_the_end_of_the_list_nobody_gets_in_until_it_is_renewed(running: Running) -> None:
    running.folder.renew(None, now=NOW - timedelta(days=31))
    assert not running.may_enter("witness")
    running.folder.renew(None, now=datetime.now(UTC))
    assert running.may_enter("witness")


def test_a_rotated_ca_lets_old_certificates_in_until_it_is_finished(running: Running) -> None:
    shutil.copytree(running.kits / "witness", running.kits / "old")
    running.tell(running.folder.rotate_start(now=NOW))
    unpack(running.folder.base / "sites" / "witness.zip", running.kits / "witness")
    shutil.copy(running.kits / "witness" / "ca.pem", running.kits / "old" / "ca.pem")
    assert running.may_enter("old")
    assert running.may_enter("witness")
    # when the old CA is believed no more
    running.tell(running.folder.rotate_finish(now=NOW))
    # then the broker's new certificate is good for who believes both, and the broker refuses an old one
    assert running.may_enter("witness")
    assert not running.may_enter("old")
    unpack(running.folder.base / "sites" / "witness.zip", running.kits / "witness")
    assert running.may_enter("witness")
