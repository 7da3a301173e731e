"""Name and port, at real sockets: what is blocked, refused, cut and foreign is told apart."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from fedbus.doctor.finding import Status
from fedbus.doctor.network import reach, resolve

LOCAL = ("127.0.0.1",)


@pytest.fixture
def listening() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Starts servers that do this with every connection; returns the port."""
    with ExitStack() as stack:

        def start(treat: Callable[[socket.socket], None]) -> int:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.callback(server.shutdown, socket.SHUT_RDWR)

            def serve() -> None:
                with suppress(OSError):
                    while True:
                        treat(server.accept()[0])

            threading.Thread(target=serve, daemon=True).start()
            return int(server.getsockname()[1])

        yield start


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
def blocked_port() -> Iterator[int]:
    """A port whose kernel answers no more: its queue of connections is full, so further packets are dropped."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(socket.socket()))
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(closing(socket.socket()))
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(server.getsockname())
        yield server.getsockname()[1]


def test_a_broker_waits_for_the_first_word(listening):
    held: list[socket.socket] = []
    assert reach(LOCAL, listening(held.append), within_s=5).status is Status.OK


def test_a_blocked_port_gives_no_answer(blocked_port):
    found = reach(LOCAL, blocked_port, within_s=0.4)
    assert found.status is Status.FAIL
    assert "a firewall drops the packets" in found.text
    assert f"allow this machine outbound TCP to 127.0.0.1:{blocked_port}" in found.fix


def test_a_refused_port_has_a_machine_and_no_listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = reach(LOCAL, port, within_s=5)
    assert "refuses the connection" in found.text
    assert "fedbus broker start" in found.fix


@pytest.mark.parametrize("treat", [reset, socket.socket.close], ids=["reset", "closed"])
def test_a_connection_that_is_cut_at_once_is_a_firewall_or_antivirus(listening, treat):
    found = reach(LOCAL, listening(treat), within_s=5)
    assert "accepts the connection and cuts it at once" in found.text
    assert "exception for this address" in found.fix


def test_who_speaks_first_is_no_broker(listening):
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
        connection.close()

    assert "no broker: it says 'SSH-2.0-OpenSSH_9.2" in reach(LOCAL, listening(greet), within_s=5).text


def test_a_dead_address_before_a_good_one_is_a_warning(listening):
    held: list[socket.socket] = []
    found = reach(["127.0.0.2", "127.0.0.1"], listening(held.append), within_s=5)
    assert (found.status, "first 127.0.0.2" in found.text) == (Status.WARN, True)


def test_a_name_that_does_not_exist():
    found, addresses = resolve("no-such-host.invalid", 5671, within_s=10)
    assert (found.status, list(addresses)) == (Status.FAIL, [])
    assert "no-such-host.invalid" in found.text


def test_an_address_needs_no_name_server():
    found, addresses = resolve("127.0.0.1", 5671, within_s=5)
    assert (found.text, list(addresses)) == ("127.0.0.1", ["127.0.0.1"])
