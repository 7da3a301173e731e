"""Who may see the page, and which settings would open it by accident."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedbus.errors import SettingsError
from fedbus.web.auth import COOKIE_S, Asking, Door, Keys, Visitor
from fedbus.web.settings import WebSettings

TOKEN = "a-word-of-sixteen-or-more"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound here
GET = Asking(method="GET", peer="127.0.0.1", host="127.0.0.1:8765")
POST = replace(GET, method="POST")


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FEDBUS_CONFIG", "FEDBUS_KIT", "FEDBUS_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEDBUS_HOME", str(tmp_path))


def door(token: str | None = None, **settings: Any) -> Door:
    return Door(WebSettings.load(**settings), Keys(token))


def test_without_a_token_whoever_is_on_this_machine_sees_the_page() -> None:
    assert door().visitor(GET, now=0.0) == Visitor()


@pytest.mark.parametrize(
    ("authorization", "who"),
    [
        (f"Bearer {TOKEN}", Visitor(who="token", by_token=True)),
        (f"bearer  {TOKEN}", Visitor(who="token", by_token=True)),
        (f"Bearer {TOKEN}x", None),
        (f"Bearer {TOKEN[:-1]}", None),
        ("Bearer ", None),
        ("Bearer \udcff\u2603", None),
        (f"Basic {TOKEN}", None),
        (TOKEN, None),
        ("", None),
    ],
)
def test_with_a_token_only_who_says_it_does(authorization: str, who: Visitor | None) -> None:
    assert door(TOKEN).visitor(replace(GET, authorization=authorization), now=0.0) == who


def test_a_cookie_lasts_half_a_day_and_cannot_be_made_without_the_token() -> None:
    keys = Keys(TOKEN)
    cookie = keys.cookie(now=1000.0)
    assert TOKEN not in cookie
    assert Door(WebSettings.load(), keys).visitor(replace(GET, cookie=cookie), now=1000.0 + COOKIE_S - 1) is not None
    until, _, mac = cookie.partition(".")
    forged = [
        cookie[:-1] + "x",
        f"{int(until) + 1}.{mac}",
        Keys("another-word-of-16").cookie(now=1000.0),
        ".",
        "9." + mac,
    ]
    assert not any(keys.fresh(one, now=1000.0) for one in [*forged, "", "a.b", f"{until}.\u2603", "9" * 5000 + ".x"])
    assert not keys.fresh(cookie, now=1000.0 + COOKIE_S)
    assert not Keys(None).fresh(Keys(None).cookie(now=0.0), now=0.0)


def test_a_proxy_is_believed_from_its_address_alone_and_when_it_says_one_name() -> None:
    behind = door(proxy_header="X-Forwarded-User", trusted_proxies=["10.0.0.0/30", "::1"])
    said = replace(GET, peer="10.0.0.2", said_by_proxy=("ana@example.org",))
    assert behind.visitor(said, now=0.0) == Visitor(who="ana@example.org")
    assert behind.visitor(replace(said, peer="::ffff:10.0.0.2"), now=0.0) is not None
    for wrong in (
        replace(said, peer="10.0.0.4"),
        replace(said, peer="127.0.0.1"),
        replace(said, peer=""),
        replace(said, said_by_proxy=()),
        replace(said, said_by_proxy=(" ",)),
        replace(said, said_by_proxy=("ana", "eve")),
    ):
        assert behind.visitor(wrong, now=0.0) is None


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8765", True),
        ("localhost", True),
        ("[::1]:8765", True),
        ("page.example.org", True),
        ("evil.example:8765", False),
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_only_the_own_names_of_the_page_are_answered(host: str, known: bool) -> None:
    assert door(hosts=["Page.example.org"]).known_host(host) is known


def test_a_page_on_every_address_is_answered_under_any_address_and_no_strange_name() -> None:
    everywhere = door(TOKEN, host=EVERYWHERE, token_file=Path("token"))
    known = [everywhere.known_host(host) for host in ("192.168.1.7:80", "[fe80::1]", "evil.example")]
    assert known == [True, True, False]


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        ("http://127.0.0.1:8765", True),
        ("https://127.0.0.1:8765", True),
        ("http://127.0.0.1:8766", False),
        ("http://evil.example", False),
        ("null", False),
        ("file://127.0.0.1:8765", False),
        (None, False),
    ],
)
def test_a_form_is_taken_from_the_own_origin_alone(origin: str | None, own: bool) -> None:
    assert Door.own_origin(replace(POST, origin=origin)) is own


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": EVERYWHERE}, "--token-file"),
        ({"host": "192.168.1.7"}, "nobody would be asked who they are"),
        ({"host": "page.example.org"}, "openssl rand"),
        ({"proxy_header": "X-Forwarded-User"}, "trusted_proxies"),
        ({"trusted_proxies": ["10.0.0.1"]}, "proxy_header"),
        ({"host": EVERYWHERE, "proxy_header": "X User", "trusted_proxies": ["10.0.0.1"]}, "proxy_header"),
        ({"tls_cert": "page.crt"}, "tls_key"),
        ({"port": 70_000}, "FEDBUS_WEB_PORT"),
    ],
    ids=str,
)
def test_settings_that_would_open_it_by_accident_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        WebSettings.load(**settings)


@pytest.mark.parametrize("word", ["short", "", "two words of enough letters", "\u00e4" * 20, "a" * 600])
def test_a_token_is_one_word_that_nobody_guesses(tmp_path: Path, word: str) -> None:
    file = tmp_path / "token"
    file.write_text(word)
    with pytest.raises(SettingsError, match="openssl rand") as refused:
        WebSettings.load(token_file=file).token()
    assert not word or word not in str(refused.value)
    file.write_text(f"  {TOKEN}\n")
    assert WebSettings.load(token_file=file).token() == TOKEN


def test_the_settings_are_those_of_the_file_the_variables_and_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "fedbus.toml"
    config.write_text('[web]\nhosts = ["a.example", "b.example"]\nport = 1\n[aggregator]\nthreads = 2\n')
    monkeypatch.setenv("FEDBUS_CONFIG", str(config))
    monkeypatch.setenv("FEDBUS_WEB_PORT", "2")
    assert (WebSettings.load().hosts, WebSettings.load().port) == (("a.example", "b.example"), 2)
    monkeypatch.setenv("FEDBUS_WEB_HOSTS", "c.example, d.example")
    assert (WebSettings.load(port=3).hosts, WebSettings.load(port=3).port) == (("c.example", "d.example"), 3)


def test_beside_another_daemon_its_login_is_not_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBUS_BROKER_URL", "amqp://aggregator:secret@127.0.0.1/fedbus")
    with pytest.raises(SettingsError, match="FEDBUS_WEB_KIT"):
        WebSettings.load().submitter(alone=False)
    login = tmp_path / "broker" / "logins" / "submitter.url"
    login.parent.mkdir(parents=True)
    login.write_text("amqp://submitter:word@127.0.0.1/fedbus\n")
    assert "submitter:word" in WebSettings.load().submitter(alone=False).url_for("submitter")
    assert "aggregator:secret" in WebSettings.load().submitter(alone=True).url_for("submitter")
    own = WebSettings.load(broker_url="amqp://page:word@127.0.0.1/fedbus").submitter(alone=False)
    assert "page:word" in own.url_for("submitter")
    assert "word" not in repr(own)


def test_every_setting_stands_in_the_aggregators_file() -> None:
    text = (Path(__file__).parents[2] / "services/aggregator/aggregator.toml").read_text()
    table = text.partition("\n[web]\n")[2]
    missing = [name for name in WebSettings.model_fields if not re.search(rf"^(# )?{name} = ", table, re.MULTILINE)]
    assert missing == []
