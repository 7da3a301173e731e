"""A real browser over the page of a real federation: one broker, one aggregator, three sites, one `fedbus web`.

The browser is Debian's chromium, driven over its debugging port. All tests of this folder share one federation.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fedbus.local.federation import Daemon, wait_until
from tests.daemons.conftest import QUICK_STATUS, House, open_house

pytest.importorskip("playwright", reason="playwright drives the browser: deploy/setup test")
from playwright.sync_api import Browser, Page, sync_playwright

T = TypeVar("T")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
AXE = Path(os.environ.get("FEDBUS_AXE", Path(__file__).parents[3] / ".venv/node/node_modules/axe-core/axe.min.js"))
SITES = ("cleveland", "hungary", "switzerland")
SLOWDOWN = 20
"""The sites leave the processors to the browser."""
SOON_MS = 20_000


@dataclass(slots=True, kw_only=True)
class Shown:
    """The page of a federation, and what browsers complained of while they showed it."""

    house: House
    address: str
    browser: Browser
    complaints: list[str] = field(default_factory=list)
    job: str = ""
    ended: str = ""

    @contextmanager
    def page(self, path: str = "/", **context: Any) -> Iterator[Page]:
        """A page in a browser of its own settings, such as `color_scheme="dark"` or `java_script_enabled=False`."""
        made = self.browser.new_context(viewport={"width": 1280, "height": 800}, **context)
        made.set_default_timeout(SOON_MS)
        try:
            page = made.new_page()
            page.on("console", lambda message: self._note(page, message.type, message.text))
            page.on("pageerror", lambda error: self._note(page, "error", str(error)))
            page.goto(self.address.rstrip("/") + path)
            yield page
        finally:
            made.close()

    def _note(self, page: Page, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{page.url}: {text}")

    def paths(self) -> Sequence[str]:
        """Every page that there is."""
        job, ended = self.job, self.ended
        of_jobs = [f"/jobs/{job}", f"/jobs/{job}/abort", f"/jobs/{job}/check", f"/jobs/{ended}/scores"]
        return ["/", "/sites", "/left", f"/compare?a={job}&b={ended}", "/submit", *of_jobs]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def shown(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, fresh_vhost: Callable[[], Any]
) -> Iterator[Shown]:
    """A federation in which one short job has ended and a long one runs."""
    with open_house(tmp_path_factory.mktemp("page"), fresh_vhost()) as house:
        house.start_aggregator()
        for name in SITES:
            house.start_site(name, slowdown=SLOWDOWN, **QUICK_STATUS)
        found = Shown(house=house, address=start_page(house), browser=browser)
        found.ended = submit(house, "short", versions=3)
        house.ended(found.ended)
        found.job = submit(house, "long", versions=100_000)
        house.aggregator.wait_for("version-committed", job=found.job, version=2)
        yield found


def submit(house: House, name: str, *, versions: int) -> str:
    local = {"steps": 4, "batch_size": 32, "learning_rate": 0.05}
    spec = {"task": "heart_disease", "task_config": {}, "local": local, "stop": {"versions": versions}}
    return elsewhere(lambda: house.submit(name=name, min_sites=2, **spec))


def elsewhere(work: Callable[[], T]) -> T:
    """In a thread of its own: the browser's driver has an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def start_page(house: House) -> str:
    """Start `fedbus web` on a free port; the address that it prints."""
    env = {"FEDBUS_BROKER_URL": house.running.url("submitter"), "FEDBUS_HOME": str(house.folder / "home")}
    log = house.folder / "logs" / "web.log"
    daemon = Daemon("web", ["fedbus", "web", "--port", "0"], env=env, log=log)
    house.running.daemons.append(daemon)

    def address() -> str | None:
        lines = log.read_text().splitlines() if log.exists() else []
        return next((line.strip() for line in lines if line.startswith("http://")), None)

    found = wait_until(address, within=timedelta(seconds=20), what="the page's address", or_else=daemon.last_words)
    assert found is not None
    return found
