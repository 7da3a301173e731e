"""Who may see the page: a token, what a trusted proxy says, or whoever is on this machine. Decides; does no I/O.

    Host header      the page's own address or one of its names, so that no name which somebody else has pointed here
                     (DNS rebinding) is answered
    Authorization    Bearer and the token
    cookie           what `Keys.cookie` made of the token at the login, for half a day
    proxy header     from the addresses of `trusted_proxies` alone, and never twice
    POST             Origin must be the page's own, unless the token came as Bearer, which no browser adds by itself

Comparisons of secrets take the same time wherever they differ.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from fedbus.web.settings import WebSettings

COOKIE_S = 12 * 3600
MOST_WHO = 200
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
ANYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what a person gave; it is compared, not bound here


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What decides of a request, lower case; `peer` is the address that the connection came from."""

    method: str
    peer: str
    host: str
    origin: str | None = None
    authorization: str = ""
    cookie: str = ""
    said_by_proxy: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Somebody who may see the page; who: a name, where it is known. by_token: came with the token as Bearer."""

    who: str = ""
    by_token: bool = False


class Keys:
    """Tokens and what is made of them."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    @property
    def needed(self) -> bool:
        return self._token is not None

    def right(self, word: str) -> bool:
        """Whether this is the token."""
        if self._token is None:
            return False
        return hmac.compare_digest(_digest(word.encode("utf-8", "replace")), _digest(self._token))

    def cookie(self, *, now: float) -> str:
        """What a browser keeps of a login until it ends: the moment and a MAC of it, nothing of the token."""
        until = str(int(now) + COOKIE_S)
        return f"{until}.{self._mac(until)}"

    def fresh(self, cookie: str, *, now: float) -> bool:
        """Whether a cookie was made here and is not over."""
        until, _, mac = cookie.partition(".")
        if self._token is None or not until.isdecimal() or len(until) > 12 or not mac.isascii():
            return False
        return hmac.compare_digest(mac, self._mac(until)) and now < int(until) <= now + COOKIE_S + 1

    def _mac(self, until: str) -> str:
        return hmac.new(self._token or b"", b"fedbus page " + until.encode(), hashlib.sha256).hexdigest()


class Door:
    """Decides on each request."""

    def __init__(self, settings: WebSettings, keys: Keys) -> None:
        self._settings = settings
        self.keys = keys
        own = settings.host.lower()
        names = {name.lower() for name in settings.hosts}
        self._any_address = own in ANYWHERE
        if settings.loopback or self._any_address:
            names |= LOOPBACK_NAMES
        if self._any_address:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        else:
            names.add(f"[{own}]" if ":" in own else own)
        self._names = frozenset(names)

    @property
    def proxy_header(self) -> str:
        """The header in which a trusted proxy says who it is; "" where there is none."""
        return self._settings.proxy_header

    def known_host(self, host: str) -> bool:
        """Whether a Host header names this page."""
        name = _without_port(host)
        return name in self._names or (self._any_address and _is_address(name))

    def visitor(self, asking: Asking, *, now: float) -> Visitor | None:
        """Who asks; None: somebody who may not see anything."""
        scheme, _, word = asking.authorization.partition(" ")
        if scheme.lower() == "bearer" and self.keys.right(word.strip()):
            return Visitor(who="token", by_token=True)
        if asking.cookie and self.keys.fresh(asking.cookie, now=now):
            return Visitor(who="token")
        if self._settings.proxy_header:
            return self._from_proxy(asking)
        return None if self.keys.needed else Visitor()

    def _from_proxy(self, asking: Asking) -> Visitor | None:
        """Who a proxy says that it is; None when it is none that is trusted, or it says nobody, or two."""
        try:
            peer = ipaddress.ip_address(asking.peer.partition("%")[0])
        except ValueError:
            return None
        peer = getattr(peer, "ipv4_mapped", None) or peer
        trusted = any(peer in network for network in self._settings.trusted_proxies if network.version == peer.version)
        if not trusted or len(asking.said_by_proxy) != 1:
            return None
        who = asking.said_by_proxy[0].strip()
        return Visitor(who=who[:MOST_WHO]) if who else None

    @staticmethod
    def own_origin(asking: Asking) -> bool:
        """Whether a form was sent from a page of this address."""
        if asking.origin is None:
            return False
        scheme, _, host = asking.origin.partition("://")
        return scheme in ("http", "https") and host == asking.host


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _digest(word: bytes) -> bytes:
    """Of one length, so that a comparison does not tell how long the word is."""
    return hashlib.sha256(word).digest()
