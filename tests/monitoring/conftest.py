"""One federation that is looked at from outside: what was scraped at each stage, and the spans that came."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedbus.broker.process import free_port
from fedbus.local.federation import wait_until
from tests.daemons.conftest import House, open_house
from tests.monitoring.otlp import Receiver, otlp_receiver

SOON = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One page of `/metrics`."""

    text: str

    def value(self, name: str, **labels: str) -> float | None:
        """Of the one series with these labels; None when there is none."""
        found = [s.value for s in self.samples() if s.name == name and labels.items() <= s.labels.items()]
        assert len(found) <= 1, f"{name} {labels}: {found}"
        return found[0] if found else None

    def samples(self) -> Iterator[Any]:
        for family in text_string_to_metric_families(self.text):
            yield from family.samples

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples()}


def scrape(port: int, path: str = "/metrics") -> Scrape:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return Scrape(answer.read().decode())


@dataclass(slots=True, kw_only=True)
class Seen:
    """A job of two sites. Of the fixture `after`: `gone`, another job, and the pages once it is forgotten."""

    house: House
    receiver: Receiver
    job: str
    ports: dict[str, int]
    ended: Scrape
    sites: dict[str, Scrape]
    gone: str = ""
    forgotten: Scrape | None = None
    site_forgotten: Scrape | None = None
    versions: int = field(default=4)


@pytest.fixture(scope="session")
def seen(tmp_path_factory: pytest.TempPathFactory, fresh_vhost: Callable[[], Any]) -> Iterator[Seen]:
    """Run the job; daemons still run while tests look, and have ended after `spans`."""
    with otlp_receiver() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        assert not any(name in os.environ for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"))
        with open_house(tmp_path_factory.mktemp("seen") / "fed", fresh_vhost()) as house:
            yield _run(house, receiver)


def _run(house: House, receiver: Receiver) -> Seen:
    ports = {name: free_port() for name in ("aggregator", "site-a", "site-b")}
    house.start_aggregator(metrics_port=ports["aggregator"])
    for name in ("site-a", "site-b"):
        house.start_site(name, metrics_port=ports[name], status_interval_s=0.5)
    house.aggregator.wait_for("aggregator-ready", within=2 * SOON)
    local = {"steps": 2, "batch_size": 32, "learning_rate": 0.05, "evaluate": True}
    job = house.submit(
        name="seen",
        local=local,
        min_sites=2,
        strategy={"kind": "buffered", "buffer": 2},
        stop={"versions": 4},
        track=["tensorboard"],
    )
    house.ended(job)
    sites = {name: scrape(ports[name]) for name in ("site-a", "site-b")}
    return Seen(house=house, receiver=receiver, job=job, ports=ports, ended=scrape(ports["aggregator"]), sites=sites)


@pytest.fixture(scope="session")
def after(seen: Seen) -> Seen:
    """The same after the end of site-b, by SIGKILL, and of a job of site-a, by `fedbus rm`."""
    house = seen.house
    seen.gone = house.submit(name="gone", sites=["site-a"], stop={"versions": 1})
    house.ended(seen.gone)
    assert seen.gone in scrape(seen.ports["site-a"]).text
    house.kill(house.running.daemons[-1])
    house.aggregator.wait_for("site-lost", within=SOON, site="site-b")

    def removed() -> bool:
        return house.fedbus("rm", seen.gone).code == 0

    wait_until(removed, within=SOON, what="the job to be closed")
    seen.forgotten = scrape(seen.ports["aggregator"])

    def gone() -> Scrape | None:
        page = scrape(seen.ports["site-a"])
        return None if seen.gone in page.text else page

    seen.site_forgotten = wait_until(gone, within=SOON, what="the job's series at the site to go")
    return seen


@pytest.fixture(scope="session")
def deploy() -> Path:
    return Path(__file__).parents[2] / "deploy"
