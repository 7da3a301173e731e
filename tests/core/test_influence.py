"""How much each site counts in the versions, how much it should, and when that is news."""

from __future__ import annotations

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival
from fedbus.core.rules.influence import SiteInfluence
from fedbus.core.spec.training import TrainingSpec

SITES = ("a", "b", "c", "d")


class Sites:
    """Sites of one job that send one after the other, each version committed when it is due."""

    def __init__(self, **spec: object) -> None:
        local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
        keys = {"name": "j", "task": "t", "local": local, "stop": {"versions": 10**6}} | spec
        self.core = Aggregation(TrainingSpec.parse(keys), now=0.0)
        self.core.set_active(SITES, now=0.0)
        self.now, self.sent = 0.0, dict.fromkeys(SITES, 0)
        self.news: list[tuple[str, SiteInfluence]] = []

    def send(self, site: str, *, num_examples: int = 100, norm: float = 1.0) -> None:
        self.now += 1.0
        self.sent[site] += 1
        update_id = UpdateId(site=site, incarnation="00000000", sequence=self.sent[site])
        effort = Effort(num_examples=num_examples, steps=1, seconds=1.0)
        arrival = Arrival(update_id=update_id, base_version=self.core.version, effort=effort, norm=norm)
        self.core.receive(arrival, now=self.now)
        if self.core.commit_due(now=self.now):
            self.core.commit(now=self.now)
            self.news += self.core.influence.news()

    def of(self, site: str) -> SiteInfluence:
        found = self.core.influence.of(site)
        assert found is not None
        return found


BUFFERED = {"strategy": {"kind": "buffered", "buffer": 4}}


def test_sites_that_send_alike_count_by_the_job_s_weighting_of_examples() -> None:
    sites = Sites(**BUFFERED)
    for _ in range(60):
        for site, examples in zip(SITES, (100, 100, 100, 400), strict=True):
            sites.send(site, num_examples=examples)
    assert [sites.of(site).influence for site in SITES] == pytest.approx([0.2, 0.2, 0.2, 0.4], abs=0.01)
    assert [sites.of(site).share for site in SITES] == pytest.approx([0.2, 0.2, 0.2, 0.4], abs=0.02)
    assert sites.news == []


def test_a_site_that_sends_four_times_as_often_is_news_once_and_that_it_stops_too() -> None:
    sites = Sites(**BUFFERED)
    for _ in range(40):
        for site in "aaaabcd":
            sites.send(site)
    assert sites.of("a").ratio == pytest.approx(16 / 7, rel=0.05)
    assert [site for site, _ in sites.news] == ["a"]
    for _ in range(200):
        for site in SITES:
            sites.send(site)
    assert [site for site, _ in sites.news] == ["a", "a"]
    assert sites.news[1][1].ratio == pytest.approx(1.0, abs=0.7)


def test_what_is_remembered_of_a_slow_site_counts_as_its_influence() -> None:
    sites = Sites(strategy={"kind": "calibrated", "buffer": 3})
    for turn in range(120):
        for site in "abc":
            sites.send(site)
        if turn % 8 == 0:
            sites.send("d")
    assert sites.of("d").influence == pytest.approx(0.25, abs=0.03)
    assert sites.news == []


def test_a_site_that_the_rule_discounts_is_said_to_count_for_less_than_its_share() -> None:
    sites = Sites(**BUFFERED)
    for turn in range(120):
        for site in "abcabcabcabc":
            sites.send(site)
        if turn % 2 == 0:
            sites.send("d")
    assert [site for site, _ in sites.news] == ["d"]
    assert sites.news[0][1].influence < 0.5 * sites.news[0][1].share


def test_a_site_that_is_away_has_no_share_and_is_no_news() -> None:
    sites = Sites(**BUFFERED)
    for _ in range(20):
        for site in SITES:
            sites.send(site)
    sites.core.set_active("abc", now=sites.now)
    before = sites.of("d").ratio
    for _ in range(100):
        for site in "abc":
            sites.send(site)
    assert sites.of("d").ratio == pytest.approx(before, rel=0.01)
    assert sites.of("a").share == pytest.approx(1 / 3, abs=0.01)
    assert sites.news == []


def test_cosines_are_running_means() -> None:
    sites = Sites(**BUFFERED)
    for site in SITES:
        sites.send(site)
    assert sites.of("a").cosine is None
    sites.core.influence.note_cosines({"a": 1.0})
    sites.core.influence.note_cosines({"a": 0.0})
    assert sites.of("a").cosine == pytest.approx(0.8)
