"""What a person does with the status page, in a real browser over a real federation."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright", reason="playwright drives the browser: deploy/setup test")
from playwright.sync_api import Page, expect

from .conftest import AXE, Shown, elsewhere

PHONE = {"width": 375, "height": 740}


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def focused(page: Page) -> str:
    """The text of what has the focus."""
    return str(page.evaluate("document.activeElement.textContent.trim()"))


def tab_to(page: Page, text: str) -> None:
    """Press Tab until something with this text has the focus, which must be seen."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if focused(page) == text:
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    raise AssertionError(f"Tab does not reach {text!r}")


def test_a_running_job_moves_without_a_reload(shown: Shown) -> None:
    with shown.page(f"/jobs/{shown.job}") as page:
        page.evaluate("window.sameDocument = true")
        version = page.locator("[data-word=version]")
        first = version.inner_text()
        expect(version).not_to_have_text(first)
        expect(page.locator("#log, .log").first).to_contain_text("version")
        expect(page.locator("canvas").first).to_be_visible()
        assert page.evaluate("window.sameDocument") is True


def test_the_five_questions_of_a_newcomer_are_answered_at_the_top(shown: Shown) -> None:
    with shown.page(f"/jobs/{shown.job}") as page:
        answers = page.locator(".answers > div")
        expect(answers).to_have_count(5)
        expect(page.locator(".answers")).to_contain_text("mean auc")
        for number in range(5):
            assert len(answers.nth(number).locator("dd").inner_text()) > 5


def test_everything_is_reached_by_the_keyboard_alone(shown: Shown) -> None:
    with shown.page("/") as page:
        page.keyboard.press("Tab")
        assert focused(page) == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        page.goto(page.url.partition("#")[0])
        tab_to(page, "Sites")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sites")
        page.go_back()
        tab_to(page, "long")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("long")
        tab_to(page, "Scores by site")
        page.keyboard.press("Enter")
        expect(page.locator(".tabs [aria-current]")).to_have_text("Scores by site")


def test_no_page_is_wider_than_a_phone_and_dark_mode_is_dark(shown: Shown) -> None:
    with shown.page("/", color_scheme="dark") as page:
        assert background(page) == "rgb(18, 23, 29)"
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        for path in shown.paths():
            page.goto(shown.address.rstrip("/") + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
    with shown.page("/", color_scheme="light") as page:
        assert background(page) == "rgb(255, 255, 255)"


@pytest.mark.parametrize(("scheme", "rules"), [("light", "{}"), ("dark", "{runOnly: ['color-contrast']}")])
def test_axe_finds_nothing_on_any_page(shown: Shown, scheme: str, rules: str) -> None:
    """In the dark only what may differ there is looked at."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: deploy/setup test")
    with shown.page("/", color_scheme=scheme, bypass_csp=True) as page:
        for path in shown.paths():
            page.goto(shown.address.rstrip("/") + path)
            page.evaluate(AXE.read_text("utf-8"))
            found = page.evaluate(f"axe.run({rules})")["violations"]
            assert [(path, one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found] == []


def test_a_spec_is_checked_while_it_is_written_submitted_and_aborted(shown: Shown) -> None:
    with shown.page("/submit") as page:
        page.evaluate("window.sameDocument = true")
        spec, said = page.get_by_label("Job spec"), page.locator("#said")
        expect(said).to_contain_text("The spec is valid")
        spec.fill("name: written\ntask: heart_disease\nlocal: {steps: 0}\n")
        expect(said).to_contain_text("local.steps")
        expect(said).to_contain_text("local.batch_size")
        spec.fill(
            "name: written\ntask: heart_disease\nmin_sites: 9\nstop: {versions: 5}\n"
            "local: {steps: 4, batch_size: 32, learning_rate: 0.05}\n"
        )
        expect(said).to_contain_text("could not start now: 3 could take part, 9 needed")
        assert page.evaluate("window.sameDocument") is True
        page.get_by_role("button", name="Submit").click()
        expect(page.locator("h1")).to_have_text("written")
        job = page.url.rpartition("/")[2]
    with shown.page(f"/jobs/{job}/abort", java_script_enabled=False) as page:
        expect(page.locator("h1")).to_have_text(f"Abort {job}?")
        page.get_by_label("Reason").fill("a wrong learning rate")
        page.get_by_role("button", name="Abort the job").click()
        expect(page).to_have_url(f"{shown.address}jobs/{job}")
    shown.house.ended(job, state="aborted")
    assert "a wrong learning rate" in elsewhere(lambda: shown.house.job(job))["says"]


def test_a_spec_that_is_refused_keeps_its_text_without_javascript(shown: Shown) -> None:
    with shown.page("/submit", java_script_enabled=False) as page:
        page.get_by_label("Job spec").fill("name: heart\nfoo: 1\n")
        page.get_by_role("button", name="Check").click()
        expect(page.locator("#said")).to_contain_text("foo")
        expect(page.get_by_label("Job spec")).to_have_value("name: heart\nfoo: 1\n")


def test_what_left_the_sites_is_told_with_bytes(shown: Shown) -> None:
    with shown.page(f"/left?job={shown.ended}") as page:
        expect(page.locator("tbody tr")).not_to_have_count(0)
        expect(page.locator("tbody .number").nth(1)).to_contain_text(" B")


def test_a_site_that_is_killed_is_seen_lost_without_a_reload(shown: Shown) -> None:
    killed = next(daemon for daemon in shown.house.running.daemons if daemon.name == "switzerland")
    with shown.page("/sites") as page, shown.page(f"/jobs/{shown.job}") as of_job:
        card = page.locator("#site-switzerland")
        expect(card).to_contain_text("online")
        page.evaluate("window.sameDocument = true")
        shown.house.kill(killed)
        expect(card.locator("header")).to_contain_text("lost")
        expect(page.locator("[role=status]").filter(has_text="lost: switzerland")).to_be_visible()
        assert page.evaluate("window.sameDocument") is True
        expect(of_job.locator("[data-site=switzerland]")).to_contain_text("lost")
        expect(of_job.locator(".answers")).to_contain_text("switzerland")


def test_no_browser_complained_of_anything(shown: Shown) -> None:
    """Last of all: neither of scripts nor of what the content security policy forbids."""
    assert shown.complaints == []
