"""First paint on loopback, and the longest task of the browser's main thread while a page is looked at.

A task is a `RunTask` of the renderer's main thread in chromium's own trace: wall clock, and the processor time of it,
which others on the machine do not lengthen.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from fedbus.bench.browser.stage import JOB, staged_page
from fedbus.bench.figures import Row, row
from fedbus.errors import SettingsError

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
FIRST_PAINT_MS = 150.0
LONGEST_MS = 50.0
LOADS = 15
LOADED_S = 3.0
"""What a page does while it loads is a row of its own."""
TASKS = "disabled-by-default-devtools.timeline"
PAINT = """() => new Promise(done => new PerformanceObserver(list => done(list.getEntriesByName(
  'first-contentful-paint')[0].startTime)).observe({type: 'paint', buffered: true}))"""


def rows(*, sites: int, events: int, rate: int, seconds: float) -> list[Row]:
    """Figures of the page of a job and of the sites. Raises SettingsError where there is no browser."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise SettingsError("no chromium here: apt-get install chromium")
    found: list[Row] = []
    paths = {"job": f"/jobs/{JOB}", "sites": "/sites", "jobs": "/"}
    with staged_page(sites=sites, past=events, rate=rate) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        for name, path in paths.items():
            paints = [_first_paint(browser, address + path) for _ in range(LOADS)]
            found.append(row(f"{name}: first paint, median of {LOADS}", median(paints), "ms", FIRST_PAINT_MS))
        what = f"{sites} sites, {events} events and {rate} more a second"
        for name in ("job", "sites"):
            found += _tasks(browser, address + paths[name], f"{name}: {what}", seconds)
        browser.close()
    return found


def _first_paint(browser: Any, url: str) -> float:
    """Milliseconds from the navigation to the first content, in a browser that has nothing of the page yet."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(url, wait_until="commit")
    found = float(page.evaluate(PAINT))
    context.close()
    return found


def _tasks(browser: Any, url: str, what: str, seconds: float) -> Iterator[Row]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(url, wait_until="load")
    page.wait_for_timeout(1000 * LOADED_S)
    browser.start_tracing(page=page, categories=[TASKS])
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        page.wait_for_timeout(1000)
        page.mouse.wheel(0, 300 if int(time.monotonic()) % 8 < 4 else -300)
    trace = json.loads(browser.stop_tracing())
    context.close()
    tasks = list(_main_tasks(trace["traceEvents"]))
    wall, cpu = (max((task[key] for task in tasks), default=0) / 1000 for key in ("dur", "tdur"))
    yield row(f"{what}: longest task in {seconds:g} s", wall, "ms", LONGEST_MS)
    yield row(f"{what}: its longest in processor time", cpu, "ms", LONGEST_MS)
    yield row(f"{what}: tasks over {LONGEST_MS:g} ms", sum(task["dur"] > 1000 * LONGEST_MS for task in tasks), "", 0)
    busy = sum(task["tdur"] for task in tasks) / 1e6 / seconds
    yield row(f"{what}: main thread busy", 100 * busy, "%")


def _main_tasks(trace: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    named = [one for one in trace if one.get("name") == "thread_name" and one["args"]["name"] == "CrRendererMain"]
    main = {(one["pid"], one["tid"]) for one in named}
    for one in trace:
        if one.get("name") == "RunTask" and (one["pid"], one["tid"]) in main:
            yield {"dur": one.get("dur", 0), "tdur": one.get("tdur", 0)}
