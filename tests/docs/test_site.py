"""The pages as they are built and served: current, whole, and read in a real browser under their own policy."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import uvicorn
from starlette.applications import Starlette

from fedbus.web import docs
from fedbus.web.auth import Door, Keys
from fedbus.web.guarded import Guarded
from fedbus.web.settings import WebSettings
from tests.web.browser.conftest import browser  # noqa: F401  a fixture

pytest.importorskip("playwright", reason="playwright drives the browser: deploy/setup test")
pytest.importorskip("material", reason="mkdocs-material builds the pages: deploy/setup test")
from playwright.sync_api import Browser, expect

ROOT = Path(__file__).parents[2]
LINK = re.compile(r'(?:href|src)="?([^"\s>]+)')
NAME = re.compile(r'\bid="?([^"\s>]+)')


def pages(*words: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`deploy/docs-site`, of a checkout."""
    env = os.environ | {"PYTHONPATH": f"{root / 'deploy'}:{ROOT}"}
    command = [sys.executable, "-m", "pages", *words]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("docs") / "built"
    done = pages("build", "--to", str(to))
    assert done.returncode == 0, done.stderr
    return to


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of /docs behind the page's own door, without a broker."""
    settings = WebSettings.load()
    app = Guarded(Starlette(routes=docs.routes(folder)), Door(settings, Keys(None)), cookie="docs")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}{docs.PATH}"
        finally:
            server.should_exit = True
            thread.join()


def copy_of_the_checkout(to: Path) -> Path:
    """Everything of it by a link, but the pages, which may be changed."""
    (to / "deploy").mkdir(parents=True)
    for path in [*ROOT.iterdir(), *(ROOT / "deploy").iterdir()]:
        there = to / path.relative_to(ROOT)
        if path.name == "docs":
            shutil.copytree(path, there)
        elif path != ROOT / "deploy" and not path.name.startswith(".git"):
            there.symlink_to(path)
    shutil.copytree(ROOT / ".github", to / ".github")
    return to


def test_the_page_of_all_settings_and_the_pictures_are_those_of_the_code(tmp_path: Path) -> None:
    copy = copy_of_the_checkout(tmp_path / "copy")
    for file in (copy / "deploy/docs").glob("aggregation-*.svg"):
        file.unlink()
    assert pages("settings").stdout == (ROOT / "deploy/docs/settings.md").read_text("utf-8"), (
        "deploy/docs-site settings"
    )
    pages("pictures", root=copy)
    for file in (ROOT / "deploy/docs").glob("aggregation-*.svg"):
        assert (copy / file.relative_to(ROOT)).read_text() == file.read_text("utf-8"), "deploy/docs-site pictures"
        assert file.stat().st_size < 30_000


def test_a_link_that_leads_nowhere_builds_nothing(tmp_path: Path) -> None:
    copy = copy_of_the_checkout(tmp_path / "copy")
    with (copy / "deploy/docs/glossary.md").open("a") as page:
        page.write("\n[away](no-such-page.md) and [beside](tutorial.md#no-such-part)\n")
    done = pages("build", "--to", str(tmp_path / "to"), root=copy)
    assert done.returncode == 1
    assert not (tmp_path / "to").exists()
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 2, done.stderr
    assert "no-such-page.md" in done.stderr
    assert "no-such-part" in done.stderr


def test_every_link_and_every_anchor_between_built_pages_leads_somewhere(built: Path) -> None:
    names = {page: set(NAME.findall(page.read_text("utf-8"))) for page in built.rglob("*.html")}
    assert len(names) > 30
    lost = []
    for page in names:
        for link in LINK.findall(page.read_text("utf-8")):
            at = urlsplit(link)
            if at.scheme or page.name == "404.html":
                continue
            there = (page.parent / unquote(at.path)).resolve() if at.path else page
            there = there / "index.html" if there.is_dir() else there
            if not there.is_file() or (at.fragment and there in names and unquote(at.fragment) not in names[there]):
                lost.append(f"{page.relative_to(built)}: {link}")
    assert lost == []


def test_nothing_that_is_built_is_fetched_from_elsewhere(built: Path) -> None:
    loaded = re.compile(r'<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)="?(https?:[^"\s>]+)')
    found = {link for page in built.rglob("*.html") for link in loaded.findall(page.read_text("utf-8"))}
    assert found == set()


def test_pages_are_read_searched_and_dark_in_a_browser_that_has_nothing_to_complain_of(
    built: Path,
    browser: Browser,  # noqa: F811
) -> None:
    complaints: list[str] = []
    with served(built) as address:
        context = browser.new_context(color_scheme="dark", viewport={"width": 1280, "height": 800})
        context.route(lambda url: not url.startswith(address), lambda route: route.abort())
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto(address)
        page.get_by_role("link", name="Two hospitals in 15 minutes").first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Two hospitals in 15 minutes")
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.body.dataset.mdColorScheme") == "slate"
        page.locator("[data-md-component=search-query]").fill("staleness")
        expect(page.locator(".md-search-result__link").first).to_be_visible()
        context.close()
    assert complaints == []


def test_without_built_pages_it_is_said_how_to_build_them(tmp_path: Path) -> None:
    asked = [route for route in docs.routes(tmp_path) if getattr(route, "path", "") == docs.PATH]
    assert len(asked) == 1
    assert "deploy/docs-site build" in docs.MISSING
