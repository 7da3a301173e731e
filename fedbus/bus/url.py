"""The broker's address: parsed once, by rules that leave no doubt where the password ends, and printed without it.

    amqp[s]://user:password@host[:port][/vhost][?cafile=...&certfile=...&keyfile=...&capath=...&auth=...&...]

Parsers of URLs disagree about a password that holds '@', '/' or '#': one takes its end for a host, looks that up and
prints it. Here such a text is refused before anything is looked up, and no other parser sees it: connections are made
from the parts. A text that is refused is not quoted either, for nobody knows which part of it is the secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv6Address
from types import MappingProxyType
from urllib.parse import quote, unquote

from fedbus.errors import SettingsError

PORTS = {"amqp": 5672, "amqps": 5671}
OPTIONS = ("auth", "cadata", "cafile", "capath", "certfile", "keyfile", "no_verify_ssl")
"""What may follow the '?': how TLS is done, and `auth=external` for a login by client certificate."""
MOST_HOST = 253
_HOST = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_MUST_BE_CODED = "@/?#[]\\"
_CODED = {" ": "a space", "\t": "a tab", "\n": "a line feed", "\r": "a carriage return"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """An AMQP URL taken apart and decoded; the password stays out of `repr` and `str`."""

    scheme: str
    user: str
    password: str = field(repr=False)
    host: str
    port: int
    vhost: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Parse the URL above; white space around it is ignored.

        Raises SettingsError, which says what is wrong and quotes nothing that may be a part of the password.
        """
        try:
            return _parse(text.strip())
        except ValueError as exc:
            # without its cause, which may quote the text
            raise SettingsError(f"broker URL {exc}; {_EXPECTED}") from None

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def tls(self) -> bool:
        return self.scheme == "amqps"

    def with_password(self) -> str:
        """The whole URL, for login files and processes of our own; never for a log or an error."""
        path = "" if self.vhost == "/" else f"/{quote(self.vhost, safe='')}"
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in self.options.items())
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"{self.scheme}://{login}@{self.address.replace('%', '%25')}{path}{'?' if query else ''}{query}"

    def __str__(self) -> str:
        path = "" if self.vhost == "/" else f"/{self.vhost}"
        return f"{self.scheme}://{self.user}:***@{self.address}{path}"


def host_and_port(text: str, default: int) -> tuple[str, int]:
    """Read `host[:port]`, an IPv6 address in brackets. ValueError in words that go after the name of the text."""
    if text.startswith("["):
        inside, bracket, after = text[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ValueError("begins an IPv6 address with '[' that does not end like [::1] or [::1]:5672")
        return _ipv6(inside), _port(after[1:], default) if after else default
    name, colon, port = text.partition(":")
    if ":" in port:
        raise ValueError("has more than one ':' in its host: an IPv6 address stands in brackets, as in [::1]:5672")
    return _name(name), _port(port, default) if colon else default


def _parse(text: str) -> BrokerUrl:
    scheme, colon, rest = text.partition("://")
    if not colon or scheme.lower() not in PORTS:
        raise ValueError("lacks a scheme amqp:// or amqps://")
    login, at, place = rest.rpartition("@")
    if not at:
        raise ValueError("lacks a user and password, user:password@, before its host")
    _check_login(login)
    place, _, query = place.partition("?")
    address, _, path = place.partition("/")
    _check_place(place, query)
    user, _, password = login.partition(":")
    if not address:
        raise ValueError("lacks a host after the '@'")
    host, port = host_and_port(address, PORTS[scheme.lower()])
    options = _options(query)
    if not user:
        raise ValueError("lacks a user before its password")
    if not password and options.get("auth", "").lower() != "external":
        raise ValueError("lacks a password after its user")
    return BrokerUrl(
        scheme=scheme.lower(),
        user=_decoded(user, "user"),
        password=_decoded(password, "password"),
        host=host,
        port=port,
        vhost=_decoded(path, "virtual host") or "/",
        options=MappingProxyType(options),
    )


# ------------------------------------------------------------------ its parts


def _check_login(login: str) -> None:
    """Everything before the last '@': a character that ends a part elsewhere makes it unclear where this one ends."""
    found = dict.fromkeys(char for char in login if char in _MUST_BE_CODED or _invisible(char))
    coded = [f"{_CODED.get(char, repr(char))} as {_percent(char)}" for char in found]
    if re.search(r"%(?![0-9A-Fa-f]{2})", login):
        coded.append("'%' as %25")
    if coded:
        raise ValueError(
            f"holds {' and '.join(c.partition(' as ')[0] for c in coded)} before the '@' that ends its password: "
            f"percent-encode the password, {', '.join(coded)}"
        )


def _check_place(place: str, query: str) -> None:
    for char in f"{place}{query}":
        if char == "#" or _invisible(char):
            name = _CODED.get(char, repr(char))
            raise ValueError(f"holds {name}: in a password or virtual host it is written {_percent(char)}")
    if "?" in query:
        raise ValueError("holds a second '?': in a password or virtual host it is written %3F")


def _invisible(char: str) -> bool:
    return char.isspace() or not char.isprintable()


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _decoded(text: str, what: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError(f"holds a '%' in its {what} that is no percent-encoding: write it %25")
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()
    except UnicodeError:
        raise ValueError(f"has a {what} that is not UTF-8 when it is decoded") from None
    if what != "password" and not decoded.isprintable():
        raise ValueError(f"has a {what} with characters that cannot be printed")
    return decoded


def _ipv6(text: str) -> str:
    # the zone of a link-local address is written %25eth0 in a URL
    address, percent, zone = unquote(text).partition("%")
    try:
        IPv6Address(address)
    except AddressValueError:
        raise ValueError("has something in the brackets of its host that is no IPv6 address") from None
    if percent and not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", zone):
        raise ValueError("has an IPv6 zone that is no name of an interface")
    return f"{address}{percent}{zone}"


def _name(text: str) -> str:
    if not text:
        raise ValueError("lacks a host before its port")
    try:
        # names with letters beyond ASCII are looked up in this form
        name = text if text.isascii() else text.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name) or len(name) > MOST_HOST:
        raise ValueError(
            "has a host that is no name: labels of 1 to 63 letters, digits, '-' and '_' with dots between them, an "
            "IPv4 address, or an IPv6 address in brackets"
        )
    return name


def _port(text: str, default: int) -> int:
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError("has something behind the ':' of its host that is no port: a number from 1 to 65535")
    return int(text)


def _options(query: str) -> dict[str, str]:
    return dict(_option(pair) for pair in _pairs(query))


def _pairs(query: str) -> Iterator[str]:
    seen: set[str] = set()
    for pair in query.split("&") if query else ():
        name = pair.partition("=")[0]
        if name in seen:
            raise ValueError(f"has the key {name[:40]!r} twice behind its '?'")
        seen.add(name)
        yield pair


def _option(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if name not in OPTIONS:
        raise ValueError(f"has an unknown key {name[:40]!r} behind its '?': known are {', '.join(OPTIONS)}")
    if not equals or not value:
        raise ValueError(f"has no value for {name} behind its '?': {name}=...")
    return name, _decoded(value, f"value of {name}")


_EXPECTED = (
    "expected amqp://user:password@host:5672/vhost "
    "(percent-encode special characters of the password); see FEDBUS_BROKER_URL"
)
