"""The page beside a real aggregator, and one of its own that outlives it, on a real broker."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fedbus.local.federation import wait_until
from fedbus.web.beside import READY
from tests.daemons.conftest import House, open_house

TOKEN = "a-word-of-sixteen-or-more"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SOON = timedelta(seconds=30)


@pytest.fixture
def house(tmp_path: Path, vhost: Any) -> Iterator[House]:
    with open_house(tmp_path / "house", vhost) as opened:
        yield opened


class Asked:
    """One request, and what came."""

    def __init__(self, address: str, path: str, *, method: str = "GET", body: str = "", **headers: str) -> None:
        at = urlsplit(address)
        self.connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=SOON.total_seconds())
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body or None, named)
        self.answer = self.connection.getresponse()

    @property
    def status(self) -> int:
        return self.answer.status

    def text(self) -> str:
        with closing(self.connection):
            return self.answer.read().decode()

    def messages(self) -> Iterator[tuple[str, Any]]:
        """Server-sent events, as they come."""
        event = ""
        while line := self.answer.readline().decode():
            name, _, value = line.strip().partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                yield event, json.loads(value) if value else None


def troubles(messages: Iterator[tuple[str, Any]]) -> Iterator[str]:
    """What is away, each time that this changes; "": nothing."""
    return ((data["trouble"] or {"what": ""})["what"] for event, data in messages if event == "link")


def test_the_page_beside_the_aggregator_asks_for_the_token_shows_the_job_and_ends_with_it(
    house: House, tmp_path: Path
) -> None:
    word = tmp_path / "token"
    word.write_text(TOKEN)
    aggregator = house.start_aggregator(
        web=True, web_port=0, web_token_file=word, web_broker_url=house.running.url("submitter")
    )
    address = aggregator.wait_for(READY)["address"]
    origin = address.rstrip("/")
    assert Asked(address, "/").status == 401
    assert Asked(address, "/live").status == 401
    assert Asked(address, "/", Authorization="Bearer wrong-wrong-wrong-w").status == 401
    assert Asked(address, "/", Host="evil.example", **BEARER).status == 421
    sent = Asked(address, "/", Accept="text/html")
    assert (sent.status, sent.answer.headers["Location"]) == (303, "/login?next=/")
    wrong = Asked(address, "/login", method="POST", body="token=wrong", Origin=origin)
    assert (wrong.status, "That is not the word" in wrong.text()) == (401, True)
    login = {"method": "POST", "body": f"token={TOKEN}&next=//evil.example/"}
    assert Asked(address, "/login", Origin="http://evil.example", **login).status == 403
    right = Asked(address, "/login", Origin=origin, **login)
    cookie = right.answer.headers["Set-Cookie"]
    assert (right.status, right.answer.headers["Location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie

    job = house.submit(name="heart", min_sites=2)
    signed_in = {"Cookie": cookie.partition(";")[0]}

    def patched() -> bool:
        page = Asked(address, f"/jobs/{job}", **signed_in)
        return page.status == 200 and "Waiting for sites: 0 of 2 accepted" in page.text()

    wait_until(patched, within=SOON, what="the job's page", or_else=aggregator.last_words)
    look = Asked(address, f"/live?job={job}", **signed_in)
    assert "default-src 'none'" in look.answer.headers["Content-Security-Policy"]
    first = next(data for event, data in look.messages() if event == "patch")
    assert first["words"]["waiting"] == "Waiting for sites: 0 of 2 accepted."
    assert Asked(address, f"/jobs/{job}/abort", method="POST", **signed_in).status == 403
    assert Asked(address, "/jobs/none", **BEARER).status == 404
    assert Asked(address, "/nothing", **BEARER).status == 404
    assert Asked(address, "/check", method="POST", body="spec=" + "a" * (2 << 20), **BEARER).status == 413
    aborted = Asked(address, f"/jobs/{job}/abort", method="POST", body="reason=enough", Origin=origin, **signed_in)
    assert (aborted.status, aborted.answer.headers["Location"]) == (303, f"/jobs/{job}")
    house.ended(job, state="aborted")
    assert "enough" in house.job(job)["says"]
    assert TOKEN not in aggregator.log.read_text()
    assert house.terminate(aggregator) == 0


def test_a_page_of_its_own_says_that_the_aggregator_is_away_and_comes_back_by_itself(house: House) -> None:
    aggregator = house.start_aggregator()
    aggregator.wait_for("aggregator-ready")
    job = house.submit(name="heart", min_sites=2)
    page = house.running.start_page()
    address = wait_until(
        lambda: next((line for line in page.log.read_text().splitlines() if line.startswith("http://")), None),
        within=SOON,
        what="the page's address",
        or_else=page.last_words,
    )
    wait_until(lambda: Asked(address, f"/jobs/{job}").status == 200, within=SOON, what="the job's page")
    away = troubles(Asked(address, f"/live?job={job}").messages())
    assert next(away) == ""
    house.kill(aggregator)
    assert next(away) == "the aggregator does not answer"
    known = Asked(address, f"/jobs/{job}")
    assert (known.status, "Waiting for sites" in known.text()) == (200, True)
    house.start_aggregator()
    assert next(away) == ""
    assert house.terminate(page) == 0
