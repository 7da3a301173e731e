"""Does the broker's name lead to an address, and does anything listen there? Before a word of AMQP or TLS is said.

no answer at all (the packets are dropped)     a firewall on the way blocks the port
refused                                        the machine is there, nothing listens on the port
reset                                          something on the way, or on the machine itself, cuts the connection
no route                                       this machine has no way to that network
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from fedbus.doctor.finding import Area, Finding, Reporter, Status
from fedbus.doctor.limits import limited

NAME = Reporter(Area.NETWORK, "name")
PORT = Reporter(Area.NETWORK, "port")
MOST_ADDRESSES = 8
SILENCE_S = 0.3
"""Who cuts a connection at once does it in a round trip."""
NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)


def resolve(host: str, port: int, *, within_s: float) -> tuple[Finding, Sequence[str]]:
    """The addresses of a host, in the order in which they are tried."""
    try:
        found = limited("look up", lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), within_s)
    except TimeoutError:
        return NAME.fail(
            f"no name server answered for {host} within {within_s:.0f} s",
            "ask IT whether this machine's name servers (/etc/resolv.conf) can be reached",
        ), ()
    except (socket.gaierror, UnicodeError) as exc:
        return _unknown_name(host, exc), ()
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))[:MOST_ADDRESSES]
    return NAME.ok(host if addresses == [host] else f"{host} is {', '.join(addresses)}"), addresses


def _unknown_name(host: str, exc: Exception) -> Finding:
    if isinstance(exc, socket.gaierror) and exc.errno == socket.EAI_AGAIN:
        return NAME.fail(
            f"the name servers of this machine do not answer for {host}",
            "check the network, /etc/resolv.conf, or a DNS that only answers inside the VPN",
        )
    return NAME.fail(
        f"{host} has no address", "correct the host of the broker URL, or have its name entered in your DNS"
    )


def reach(addresses: Sequence[str], port: int, *, within_s: float) -> Finding:
    """Whether anything accepts a TCP connection there; one address that does is enough, those before it cost time."""
    failed: list[Finding] = []
    limit_s = within_s / len(addresses)
    for address in addresses:
        where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        try:
            found = _knock(address, port, where, limit_s)
        except OSError as exc:
            found = _no_connection(where, exc, limit_s)
        if found.status is Status.OK and failed:
            return PORT.warn(
                f"{found.text}, but first {failed[0].text}: each connect loses time there",
                "have the dead address taken out of DNS, or the way to it opened",
            )
        if found.status is Status.OK:
            return found
        failed.append(found)
    return failed[0]


def _knock(address: str, port: int, where: str, within_s: float) -> Finding:
    """A broker waits for the first word: who speaks first is none, and who hangs up is not let through."""
    with socket.create_connection((address, port), timeout=within_s) as sock:
        sock.settimeout(min(SILENCE_S, within_s))
        try:
            first = sock.recv(40)
        except TimeoutError:
            return PORT.ok(f"{where} accepts connections")
        except OSError:
            first = b""
    if not first:
        return cut(where)
    return PORT.fail(
        f"something answers at {where} that is no broker: it says {first.decode('ascii', 'replace')!r}",
        "correct host and port of the broker URL",
    )


def _no_connection(where: str, exc: OSError, waited_s: float) -> Finding:
    match exc:
        case TimeoutError():
            return PORT.fail(
                f"{where} gives no answer within {waited_s:.0f} s: a firewall drops the packets, or the machine is off",
                f"ask IT to allow this machine outbound TCP to {where}; no inbound port is needed",
            )
        case ConnectionRefusedError():
            return PORT.fail(
                f"{where} refuses the connection: the machine is there, and nothing listens on that port",
                _start_or_correct(where),
            )
        case ConnectionResetError() | ConnectionAbortedError():
            return cut(where)
        case OSError(errno=number) if number in NO_ROUTE:
            return PORT.fail(
                f"there is no route from this machine to {where}", "connect the network or the VPN that leads there"
            )
    return PORT.fail(f"{where} cannot be reached: {exc.strerror or exc}", "check the network of this machine")


def cut(where: str) -> Finding:
    """A connection that was accepted, and cut before either side could say a word."""
    return PORT.fail(
        f"{where} accepts the connection and cuts it at once: a firewall or antivirus on the way, or no broker",
        "ask IT for an exception for this address and port in firewall and antivirus; else ask the broker's operator",
    )


def _start_or_correct(where: str) -> str:
    address = where.rpartition(":")[0].strip("[]")
    try:
        here = ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        here = False
    if here:
        return "start the broker (`fedbus broker start`), or correct the port of the broker URL"
    return "correct the port of the broker URL (amqps: 5671), or ask the broker's operator whether it runs"
