"""A slow, lossy link between this machine and a network namespace, for real TCP: loss, delay and rate in user space.

    in the namespace ─ kernel's TCP ─ device "far" ─ Line up   ─▶ device "near" ─ kernel's TCP ─ door ─▶ 127.0.0.1:port
                                                   ◀─ Line down ─

Not `tc netem`: many kernels come without it, this works wherever there is /dev/net/tun and root, and its losses are
seeded. Nothing listens where another machine could reach it: the door's socket is bound to the device.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import select
import socket
import threading
import time
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from fedbus.bench.chaos.proxy import Backstage, Proxy
from fedbus.bench.slow_link.line import Line, LineSpec
from fedbus.bench.slow_link.namespace import Namespace, open_tun
from fedbus.bus.url import BrokerUrl
from fedbus.errors import NodeError

LARGEST_PACKET = 1 << 16
# For benchmarks of networks, RFC 2544: nobody routes these.
NEAR, FAR = "198.18.{0}.1", "198.18.{0}.2"
CONGESTION_FILE = Path("/proc/sys/net/ipv4/tcp_congestion_control")


class SlowLink:
    """The link; a context manager. Leaving it removes everything. NodeError when this machine cannot have one.

    `congestion` names the congestion control of both ends: on a lossy line the rate depends on little else. Reno is
    allowed everywhere; at 2 % loss cubic is no faster. `near` is the address at which the far end finds this one.
    """

    def __init__(self, spec: LineSpec, *, congestion: str = "reno", seed: int = 0) -> None:
        draw = random.Random(seed)
        self.spec = spec
        self.up, self.down = Line(spec, draw), Line(spec, draw)
        self._congestion = congestion
        self._number = os.getpid() % 250
        self.near, self._far = NEAR.format(self._number), FAR.format(self._number)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._namespace = stack.enter_context(Namespace())
            near = self._device(stack, "near", self.near, self._far)
            with self.inside():
                far = self._device(stack, "far", self._far, self.near)
                self._choose_congestion()
            self._carrier = stack.enter_context(Carrier(near, far, up=self.up, down=self.down))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _device(self, stack: ExitStack, end: str, address: str, peer: str) -> int:
        fd = open_tun(f"fb{end}{self._number}", address=address, peer=peer)
        stack.callback(os.close, fd)
        return fd

    def _choose_congestion(self) -> None:
        try:
            CONGESTION_FILE.write_text(self._congestion)
        except OSError as exc:
            allowed = CONGESTION_FILE.with_name("tcp_allowed_congestion_control").read_text().strip()
            raise NodeError(
                f"congestion control {self._congestion!r} may not be used in a network namespace; allowed: {allowed}"
            ) from exc

    def inside(self) -> AbstractContextManager[None]:
        """What this thread opens or starts in the block is at the far end."""
        return self._namespace.inside()

    def listen(self) -> socket.socket:
        """A socket that listens at the near end, for the far end only."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"fbnear{self._number}".encode())
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self._congestion.encode())
        listening.bind((self.near, 0))
        listening.listen()
        return listening

    def open_door(self, url: str) -> str:
        """Let the far end reach the broker at `url`, which listens on 127.0.0.1; returns the URL that it must use."""
        listening = self.listen()
        backstage = self._stack.enter_context(Backstage())
        door = Proxy(url)
        backstage.wait(door.up(listening=listening))
        self._stack.callback(lambda: backstage.wait(door.close()))
        host, port = listening.getsockname()
        return replace(BrokerUrl.parse(url), host=host, port=port).with_password()

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._carrier.cut = True

    def mend(self) -> None:
        """Packets pass again."""
        self._carrier.cut = False

    def plain_transfer_s(self, size_bytes: int) -> float:
        """Seconds in which plain TCP brings so many bytes up and the answer back, on a connection of its own."""
        with self.listen() as listening, self.inside():
            sink = threading.Thread(target=_swallow, args=(listening, size_bytes), name="sink", daemon=True)
            sink.start()
            with socket.create_connection(listening.getsockname(), timeout=600) as sending:
                began = time.monotonic()
                sending.sendall(bytes(size_bytes))
                sending.recv(1)
                return time.monotonic() - began


def _swallow(listening: socket.socket, size_bytes: int) -> None:
    receiving, _ = listening.accept()
    with receiving:
        while size_bytes > 0:
            size_bytes -= len(receiving.recv(LARGEST_PACKET))
        receiving.sendall(b"!")


class Carrier:
    """Carries packets between two TUN devices in a thread, as two lines say; a context manager."""

    def __init__(self, near: int, far: int, *, up: Line, down: Line) -> None:
        self._routes = {far: (near, up), near: (far, down)}
        self._on_the_way: list[tuple[float, int, int, bytes]] = []
        self._order = itertools.count()
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="slow link", daemon=True)
        self.cut = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._stop_writer)
        self._thread.join()
        os.close(self._stop_reader)

    def _carry(self) -> None:
        while True:
            next_at = self._on_the_way[0][0] if self._on_the_way else None
            wait_s = None if next_at is None else max(0.0, next_at - time.monotonic())
            readable, _, _ = select.select([self._stop_reader, *self._routes], [], [], wait_s)
            if self._stop_reader in readable:
                return
            for source in readable:
                self._take(source)
            self._deliver()

    def _take(self, source: int) -> None:
        target, line = self._routes[source]
        with suppress(BlockingIOError):
            while True:
                packet = os.read(source, LARGEST_PACKET)
                out_at = line.arrives(len(packet), now=time.monotonic())
                if out_at is not None and not self.cut:
                    heapq.heappush(self._on_the_way, (out_at, next(self._order), target, packet))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._on_the_way and self._on_the_way[0][0] <= now:
            _, _, target, packet = heapq.heappop(self._on_the_way)
            if not self.cut:
                with suppress(OSError):  # its queue is full: one more lost packet
                    os.write(target, packet)
