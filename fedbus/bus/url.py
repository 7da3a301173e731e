"""The broker's address: parsed once, by rules that leave no doubt where the password ends, and printed without it.

    amqps://host[:port][/vhost]                     the kit's certificate logs in
    amqps://user:password@host[:port][/vhost]       a password logs in; the broker's CA is one that this system trusts
    amqp://user:password@127.0.0.1[:port][/vhost]   without TLS: nothing leaves this machine

A broker of several nodes has several places, `host[:port],host[:port]`: any of them serves, and what is asked of one
holds for each. A login and a virtual host are those of all.

Without TLS whoever is on the way reads the password and changes what passes, so `amqp://` is for loopback alone;
nothing in a URL turns the check of the broker's certificate off.

Parsers of URLs disagree about a password that holds '@', '/' or '#': one takes its end for a host, looks that up and
prints it. Here such a text is refused before anything is looked up, and no other parser sees it: connections are made
from the parts. A text that is refused is not quoted either, for nobody knows which part of it is the secret.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv6Address, ip_address
from urllib.parse import quote, unquote

from fedbus.errors import SettingsError

PORTS = {"amqp": 5672, "amqps": 5671}
TLS_KEYS = frozenset({"auth", "cadata", "cafile", "capath", "certfile", "keyfile"})
"""What other AMQP clients read behind the '?'; here the kit has the files."""
MOST_HOST = 253
MOST_PLACES = 9
_HOST = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_MUST_BE_CODED = "@/?#[]\\"
_CODED = {" ": "a space", "\t": "a tab", "\n": "a line feed", "\r": "a carriage return"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """An AMQP URL taken apart and decoded; the password stays out of `repr` and `str`.

    `user` and `password` are empty where a certificate logs in. `more` are the other places, host and port, of a broker
    that has several.
    """

    scheme: str
    user: str
    password: str = field(repr=False)
    host: str
    port: int
    vhost: str
    more: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Parse the URL above; white space around it is ignored.

        Raises SettingsError, which says what is wrong and quotes nothing that may be a part of the password.
        """
        url = cls.take_apart(text)
        far = " and ".join(each.host for each in url.places if not is_loopback(each.host))
        if far and not url.tls:
            raise SettingsError(
                f"broker URL {url} has no TLS: on the way to {far} anybody could read its password and change "
                f"what passes. Write amqps:// and the port where that broker speaks TLS ({PORTS['amqps']}); `fedbus "
                "provision` makes the certificates. Plain amqp:// is for 127.0.0.1, ::1 and localhost: the end of an "
                "SSH tunnel is there"
            )
        return url

    @classmethod
    def take_apart(cls, text: str) -> BrokerUrl:
        """Parse any URL of the forms above, also one that no connection may be made with: to read its parts."""
        try:
            return _parse(text.strip())
        except ValueError as exc:
            # without its cause, which may quote the text
            raise SettingsError(f"broker URL {exc}; {_EXPECTED}") from None

    @property
    def address(self) -> str:
        """`host:port`, an IPv6 address in brackets; with commas between several."""
        return ",".join(address_of(host, port) for host, port in ((self.host, self.port), *self.more))

    @property
    def places(self) -> tuple[BrokerUrl, ...]:
        """A URL for each place alone, in their order."""
        alone = ((self.host, self.port), *self.more)
        return tuple(replace(self, host=host, port=port, more=()) for host, port in alone)

    def at(self, places: Sequence[tuple[str, int]]) -> BrokerUrl:
        """The same login at other places; at least one."""
        (host, port), *more = places
        return replace(self, host=host, port=port, more=tuple(more))

    @property
    def tls(self) -> bool:
        return self.scheme == "amqps"

    @property
    def on_loopback(self) -> bool:
        """Whether what is sent there stays on this machine, as its text alone says it; no name is looked up."""
        return all(is_loopback(each.host) for each in self.places)

    def with_password(self) -> str:
        """The whole URL, for login files and processes of our own; never for a log or an error."""
        path = "" if self.vhost == "/" else f"/{quote(self.vhost, safe='')}"
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        return f"{self.scheme}://{login}{self.address.replace('%', '%25')}{path}"

    def __str__(self) -> str:
        path = "" if self.vhost == "/" else f"/{self.vhost}"
        return f"{self.scheme}://{f'{self.user}:***@' if self.user else ''}{self.address}{path}"


def is_loopback(host: str) -> bool:
    """127.0.0.0/8, ::1 or localhost; a name that happens to lead there is none."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def address_of(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def places_of(text: str, default: int) -> tuple[tuple[str, int], ...]:
    """Read `host[:port],host[:port]`, one or several. ValueError in words that go after the name of the text."""
    parts = text.split(",")
    if len(parts) > MOST_PLACES:
        raise ValueError(f"has {len(parts)} hosts, and at most {MOST_PLACES} are tried")
    if len(parts) > 1 and not all(parts):
        raise ValueError("lacks a host before or after a ','")
    places = tuple(host_and_port(part, default) for part in parts)
    if twice := [place for place in places if places.count(place) > 1]:
        raise ValueError(f"has {address_of(*twice[0])} twice")
    return places


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
    scheme = scheme.lower()
    if not colon or scheme not in PORTS:
        raise ValueError("lacks a scheme amqps:// or amqp://")
    login, at, place = rest.rpartition("@")
    _check_login(login)
    place, mark, query = place.partition("?")
    address, _, path = place.partition("/")
    _check_place(f"{place}{query}")
    user, password = _login(login) if at else ("", "")
    if not at and scheme == "amqp":
        raise ValueError("lacks a user and password, user:password@, before its host: only amqps:// logs in without")
    if not address:
        raise ValueError("lacks a host after the '@'" if at else "lacks a host")
    (host, port), *more = places_of(address, PORTS[scheme])
    if mark:
        raise ValueError(_refused_query(query))
    return BrokerUrl(
        scheme=scheme,
        user=user,
        password=password,
        host=host,
        port=port,
        vhost=_decoded(path, "virtual host") or "/",
        more=tuple(more),
    )


def _login(text: str) -> tuple[str, str]:
    user, _, password = text.partition(":")
    if not user:
        raise ValueError("lacks a user before its password")
    if not password:
        raise ValueError("lacks a password after its user: a certificate logs in without both, amqps://host/vhost")
    return _decoded(user, "user"), _decoded(password, "password")


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


def _check_place(text: str) -> None:
    for char in text:
        if char == "#" or _invisible(char):
            name = _CODED.get(char, repr(char))
            raise ValueError(f"holds {name}: in a password or virtual host it is written {_percent(char)}")


def _refused_query(query: str) -> str:
    """Why nothing stands behind the '?', by the keys that were tried there."""
    names = [pair.partition("=")[0] for pair in query.split("&")]
    if "no_verify_ssl" in names:
        return (
            "has no_verify_ssl behind its '?': the broker's certificate is always checked, else anybody could be the "
            "broker. Take it out; the kit (FEDBUS_KIT) has the federation's ca.pem"
        )
    if tls := [name for name in names if name in TLS_KEYS]:
        return (
            f"has {', '.join(dict.fromkeys(tls))} behind its '?': certificates and the login by them come from the "
            "kit. Take the '?' and what follows out, and set FEDBUS_KIT (or --kit) to the kit's folder"
        )
    return "has a '?' with something behind it: nothing is read there. In a password or virtual host it is written %3F"


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


_EXPECTED = (
    "expected amqps://host:5671/vhost with a kit (FEDBUS_KIT), or amqps://user:password@host:5671/vhost, on loopback "
    "amqp://user:password@127.0.0.1:5672/vhost (percent-encode special characters of the password; several hosts of "
    "one broker as host:5671,host:5671); see FEDBUS_BROKER_URL"
)
