"""A network namespace without a name, and a TUN device in any namespace.

Both live as long as a file descriptor of this process: whatever ends it, nothing of them stays behind. Needs root, or
CAP_SYS_ADMIN and CAP_NET_ADMIN in a container that has /dev/net/tun.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from fedbus.errors import NodeError

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
TUN = Path("/dev/net/tun")

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A fresh network namespace; a context manager. NodeError when it cannot be made."""

    def __init__(self) -> None:
        self._fd = -1
        failure: list[OSError] = []

        def make() -> None:
            # a thread of its own: it moves into the new namespace, and ends
            if _libc.unshare(CLONE_NEWNET):
                failure.append(OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno())))
            else:
                self._fd = _own_fd()

        thread = threading.Thread(target=make, name="new namespace")
        thread.start()
        thread.join()
        if failure:
            raise NodeError(f"cannot make a network namespace: {failure[0].strerror}; run as root, outside a sandbox")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens or starts in the block lives in the namespace, and stays there."""
        home = _own_fd()
        try:
            _enter(self._fd)
            yield
        finally:
            _enter(home)
            os.close(home)


def _own_fd() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        raise NodeError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


def open_tun(name: str, *, address: str, peer: str) -> int:
    """Make a TUN device in this thread's namespace, from `address` to `peer`; returns its descriptor, for packets."""
    if not TUN.exists():
        raise NodeError(f"a slow link needs {TUN}, which this machine does not have: modprobe tun, as root")
    try:
        fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    except OSError as exc:
        raise NodeError(f"cannot open {TUN}: {exc.strerror}; run as root") from exc
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        for words in (f"address add {address} peer {peer} dev {name}", f"link set {name} up"):
            _ip(words)
    except OSError as exc:
        os.close(fd)
        raise NodeError(
            f"cannot make the network device {name}: {exc.strerror}; run as root, one link a process"
        ) from exc
    except NodeError:
        os.close(fd)
        raise
    return fd


def _ip(words: str) -> None:
    try:
        subprocess.run(["ip", *words.split()], check=True, capture_output=True, text=True)
    except FileNotFoundError as exc:
        raise NodeError("a slow link needs the program `ip`: install iproute2") from exc
    except subprocess.CalledProcessError as exc:
        raise NodeError(f"ip {words} failed: {exc.stderr.strip()}") from exc
