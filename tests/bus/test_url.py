"""The broker's address: what is refused before anything is looked up, in words that hold no part of a password."""

from __future__ import annotations

import asyncio
import traceback
from datetime import timedelta

import pytest

from fedbus.bus.connection import Session
from fedbus.bus.declare import exists
from fedbus.bus.url import BrokerUrl
from fedbus.errors import LoginError, SettingsError, UnreachableError

SECRET = ("open", "sesame")


def refusal(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        BrokerUrl.parse(text)
    said = "".join(traceback.format_exception(caught.value))
    for part in SECRET:
        assert part not in said
    assert "expected amqps://host:5671/vhost with a kit (FEDBUS_KIT)" in str(caught.value)
    return str(caught.value).partition("; expected")[0]


@pytest.mark.parametrize(
    ("char", "name", "coded"),
    [
        ("@", "'@'", "%40"),
        ("/", "'/'", "%2F"),
        ("#", "'#'", "%23"),
        ("?", "'?'", "%3F"),
        ("[", "'['", "%5B"),
        ("]", "']'", "%5D"),
        ("\\", r"'\\'", "%5C"),
        (" ", "a space", "%20"),
        ("\n", "a line feed", "%0A"),
        ("\x00", r"'\x00'", "%00"),
        ("%", "'%'", "%25"),
        ("\u202e", r"'\u202e'", "%E2%80%AE"),
    ],
)
@pytest.mark.parametrize("where", ["open{}sesame", "{}opensesame", "opensesame{}", "op{0}en:se{0}same"])
def test_a_password_with_a_character_that_ends_it_elsewhere_is_refused_by_that_character(char, name, coded, where):
    said = refusal(f"amqp://mercy:{where.format(char)}@127.0.0.1:5672/fedbus")
    assert name in said
    assert f"percent-encode the password, {name} as {coded}" in said
    assert BrokerUrl.parse(f"amqp://mercy:{where.format(coded)}@127.0.0.1/").password == where.format(char)


def test_every_character_that_must_be_coded_is_named_at_once():
    assert "percent-encode the password, '@' as %40, '/' as %2F, '#' as %23" in refusal("amqp://a:open@/sesame#@h/")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("opensesame", "lacks a scheme"),
        ("http://mercy:opensesame@host/", "lacks a scheme"),
        ("amqp://opensesame", "lacks a user and password"),
        ("amqp://host/fedbus", "lacks a user and password"),
        ("amqp://:opensesame@host/", "lacks a user"),
        ("amqp://mercy@host/", "lacks a password"),
        ("amqp://mercy:@host/", "lacks a password"),
        ("amqp://mercy:opensesame@", "lacks a host"),
        ("amqp://mercy:opensesame@/fedbus", "lacks a host"),
        ("amqp://mercy:opensesame@:5672/fedbus", "lacks a host"),
        ("amqp://mercy:pw@host:opensesame/", "no port: a number from 1 to 65535"),
        ("amqp://mercy:opensesame@host:0/", "no port: a number from 1 to 65535"),
        ("amqp://mercy:opensesame@host:65536/", "no port: a number from 1 to 65535"),
        ("amqp://mercy:opensesame@host:-1/", "no port: a number from 1 to 65535"),
        ("amqp://mercy:opensesame@host:\u0665\u0666/", "no port: a number from 1 to 65535"),
        ("amqp://mercy:opensesame@::1:5672/", "an IPv6 address stands in brackets"),
        ("amqp://mercy:opensesame@[::1/", "that does not end like [::1]"),
        ("amqp://mercy:opensesame@host..name/", "a host that is no name"),
        ("amqp://mercy:opensesame@ho st/", "holds a space"),
        ("amqp://mercy:opensesame@host;other/", "a host that is no name"),
        (f"amqp://mercy:opensesame@{'h' * 64}/", "a host that is no name"),
        ("amqp://mercy:opensesame@host/fed%bus", "in its virtual host that is no percent-encoding"),
        ("amqp://mercy:opensesame@host/fed#bus", "holds '#'"),
        ("amqp://mercy:opensesame@host/fed\nbus", "holds a line feed"),
        ("amqp://mercy:opensesame@host/fed%0Abus", "virtual host with characters that cannot be printed"),
        ("amqp://mer%1Bcy:opensesame@host/", "user with characters that cannot be printed"),
        ("amqp://mercy:%FFopensesame@host/", "password that is not UTF-8"),
        ("amqps://:opensesame@host/", "lacks a user"),
        ("amqps://mercy@host/", "a certificate logs in without both"),
        ("amqps:///opensesame", "lacks a host"),
        ("amqps://mercy:opensesame/fedbus", "no port: a number from 1 to 65535"),
        ("amqps://mercy:opensesame@host/?heartbeats=3", "nothing is read there"),
        ("amqps://mercy:5671?opensesame", "nothing is read there"),
        ("amqps://mercy:opensesame@host/?", "nothing is read there"),
        ("amqps://mercy:opensesame@host/?no_verify_ssl=1", "the broker's certificate is always checked"),
        ("amqps://host/?cafile=ca.pem&no_verify_ssl=0", "the broker's certificate is always checked"),
        ("amqps://host/?cafile=/open/sesame.pem&certfile=a", "has cafile, certfile behind its '?'"),
        ("amqps://mercy@host/?auth=external", "lacks a password"),
        ("amqps://host/?auth=external", "set FEDBUS_KIT (or --kit) to the kit's folder"),
    ],
)
def test_what_is_wrong_is_said_without_any_part_that_may_be_the_password(text, says):
    assert says in refusal(text)


@pytest.mark.parametrize("text", ["amqp://mercy:opensesame@[::1/", "amqp://mercy:opensesame@[::x]/", "amqp://a:b@[]/"])
def test_brackets_hold_an_ipv6_address(text):
    refusal(text)


@pytest.mark.parametrize(
    ("text", "address", "vhost"),
    [
        ("amqp://mercy:pw@[::1]:25731/fedbus", "[::1]:25731", "fedbus"),
        ("amqps://mercy:pw@[2001:db8::1]", "[2001:db8::1]:5671", "/"),
        ("amqps://mercy:pw@[fe80::1%25eth0]/", "[fe80::1%eth0]:5671", "/"),
        ("AMQPS://mercy:pw@broker_1.klinik.example:25731/fedbus", "broker_1.klinik.example:25731", "fedbus"),
        ("amqps://mercy:pw@broker.example./fedbus", "broker.example.:5671", "fedbus"),
        ("amqps://mercy:pw@bücher.example/%2F", "xn--bcher-kva.example:5671", "/"),
        ("\n amqps://mercy:pw@10.0.0.1/fedbus\r\n", "10.0.0.1:5671", "fedbus"),
        ("amqps://mercy:pw@host/a%2Fb", "host:5671", "a/b"),
        ("amqps://host:443/fedbus", "host:443", "fedbus"),
        ("amqps://[::1]", "[::1]:5671", "/"),
    ],
)
def test_what_is_whole_is_taken_apart_and_written_again_as_it_was_meant(text, address, vhost):
    url = BrokerUrl.parse(text)
    assert (url.address, url.vhost) == (address, vhost)
    assert BrokerUrl.parse(url.with_password()) == url


def test_it_prints_without_its_password():
    url = BrokerUrl.parse("amqps://mercy:open%40sesame@hub/fedbus")
    for shown in (str(url), repr(url), f"{url}", f"{[url]}"):
        assert "sesame" not in shown
    assert str(url) == "amqps://mercy:***@hub:5671/fedbus"


def test_a_login_by_certificate_needs_no_user():
    url = BrokerUrl.parse("amqps://hub/fedbus")
    assert (url.user, url.password, str(url)) == ("", "", "amqps://hub:5671/fedbus")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "LOCALHOST.", "[::1]"])
def test_without_tls_a_broker_on_loopback_is_reached(host):
    assert not BrokerUrl.parse(f"amqp://mercy:pw@{host}/fedbus").tls


@pytest.mark.parametrize(
    "host",
    [
        "broker",
        "10.0.0.1",
        "[::]",
        "128.0.0.1",
        "127.1",
        "localhost.example.org",
        "[::ffff:10.0.0.1]",
        "2130706433",
    ],
)
def test_without_tls_no_other_broker_is_reached(host):
    with pytest.raises(SettingsError) as caught:
        BrokerUrl.parse(f"amqp://mercy:opensesame@{host}/fedbus")
    assert "has no TLS" in str(caught.value)
    assert "Write amqps://" in str(caught.value)
    assert "sesame" not in str(caught.value)


# ------------------------------------------------------------------ on the way to a broker

AWKWARD = "p@ss/w#rd?[%41] :ü&=+"


async def test_a_password_of_awkward_characters_logs_in_when_it_is_coded(vhost):
    # given a login whose password has every character that ends something in a URL
    vhost.node.ctl("add_user", "awkward", AWKWARD)
    vhost.node.ctl("set_permissions", "-p", vhost.vhost, "awkward", "", "", ".*")
    url = BrokerUrl.parse(vhost.url("site-a"))
    coded = "".join(f"%{byte:02X}" for byte in AWKWARD.encode())
    # when it is percent-encoded
    async with Session(f"amqp://awkward:{coded}@{url.address}/{url.vhost}", name="test") as session:
        await session.ready()
        # then the broker takes it
        assert await exists(session, "fedbus.events")


async def test_a_broker_on_ipv6_is_reached_by_its_address_in_brackets(vhost):
    # given a listener on ::1 that passes everything on to the broker
    port = BrokerUrl.parse(vhost.url("site-a")).port

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))

    server = await asyncio.start_server(serve, "::1", 0)
    listening = server.sockets[0].getsockname()[1]
    # when a site is given that address
    url = vhost.url("site-a").replace(f"127.0.0.1:{port}", f"[::1]:{listening}")
    async with Session(url, name="test") as session:
        await session.ready()
        assert str(session.url) == f"amqp://site-a:***@[::1]:{listening}/{vhost.vhost}"
    server.close()


@pytest.mark.parametrize("wrong", ["password", "port", "vhost"])
async def test_no_error_of_any_layer_holds_the_password(vhost, unused_tcp_port, wrong):
    url = BrokerUrl.parse(vhost.url("site-a"))
    text = {
        "password": f"amqp://site-a:open%40sesame@{url.address}/{url.vhost}",
        "port": f"amqp://site-a:open%40sesame@127.0.0.1:{unused_tcp_port}/{url.vhost}",
        "vhost": f"{vhost.url('site-a').rpartition('/')[0]}/elsewhere",
    }[wrong]
    password = url.password if wrong == "vhost" else "sesame"
    told: list[str] = []
    with pytest.raises((LoginError, UnreachableError)) as caught:
        async with Session(
            text, name="test", give_up_after=timedelta(0), on_state=lambda _, words: told.append(words)
        ) as session:
            await session.ready()
    assert password not in "".join(traceback.format_exception(caught.value))
    assert password not in "".join(told)


# ------------------------------------------------------------------ several places


def test_a_broker_of_several_nodes_has_several_places():
    url = BrokerUrl.parse("amqps://one.example.org,two.example.org:5672,[::1]:5673/fedbus")

    assert [place.address for place in url.places] == ["one.example.org:5671", "two.example.org:5672", "[::1]:5673"]
    assert all(place.places == (place,) for place in url.places)
    assert url.address == "one.example.org:5671,two.example.org:5672,[::1]:5673"
    assert BrokerUrl.parse(url.with_password()) == url
    assert str(url) == "amqps://one.example.org:5671,two.example.org:5672,[::1]:5673/fedbus"


def test_a_comma_in_the_password_parts_no_hosts():
    url = BrokerUrl.parse("amqp://site-a:a,b:1@127.0.0.1:1,localhost:2/fedbus")

    assert url.password == "a,b:1"
    assert [(place.host, place.port, place.password) for place in url.places] == [
        ("127.0.0.1", 1, "a,b:1"),
        ("localhost", 2, "a,b:1"),
    ]


@pytest.mark.parametrize(
    ("places", "says"),
    [
        ("127.0.0.1,", "lacks a host before or after a ','"),
        (",127.0.0.1", "lacks a host before or after a ','"),
        ("127.0.0.1,,127.0.0.2", "lacks a host before or after a ','"),
        ("127.0.0.1, 127.0.0.2", "holds a space"),
        ("127.0.0.1:1,127.0.0.1:1", "has 127.0.0.1:1 twice"),
        ("127.0.0.1:1,127.0.0.2:x", "no port"),
        (",".join(f"127.0.0.{n}" for n in range(1, 11)), "has 10 hosts, and at most 9 are tried"),
    ],
)
def test_places_that_are_none_are_refused_in_words(places, says):
    with pytest.raises(SettingsError) as caught:
        BrokerUrl.parse(f"amqp://site-a:secret@{places}/fedbus")

    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_tls_every_place_must_be_on_this_machine():
    with pytest.raises(SettingsError, match=r"on the way to far\.example\.org anybody could read"):
        BrokerUrl.parse("amqp://site-a:secret@127.0.0.1,far.example.org,[::1]/fedbus")
