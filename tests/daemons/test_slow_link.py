"""A site behind 10 Mbit/s, 200 ms and 2 % loss makes progress, and a cut costs nothing but time."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fedbus.bench.figures import Row
from fedbus.bench.slow_link.line import LineSpec
from fedbus.bench.slow_link.link import SlowLink
from fedbus.bench.slow_link.namespace import TUN
from fedbus.bench.slow_link.run import ALLOWED, FAR, NEAR, SlowPlan, figures, play
from fedbus.local.federation import LocalFederation

LINE = LineSpec(mbit=10, rtt_s=0.2, loss=0.02)
PLAN = SlowPlan(line=LINE, seconds=8, cut_s=3, mib=0.25, near_train_s=1.0, far_train_s=0.2)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not TUN.exists(), reason=f"this machine has no {TUN}"),
]


@pytest.fixture(scope="module")
def link() -> Iterator[SlowLink]:
    with SlowLink(LINE) as link:
        yield link


@pytest.fixture(scope="module")
def measured(link: SlowLink, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """Rows of one run over the link, by what stands after the line's properties."""
    folder = tmp_path_factory.mktemp("slow") / "fed"
    with LocalFederation(folder, sites=(NEAR, FAR), tls=ALLOWED, host=link.near) as federation:
        run = play(PLAN, federation, link)
    return {row["case"].partition(": ")[2]: row for row in figures(PLAN, federation, run, plain_s=0.0)}


def test_plain_tcp_over_the_link_is_as_slow_as_the_line(link: SlowLink) -> None:
    size_bytes = 64 << 10
    assert link.plain_transfer_s(size_bytes) >= LINE.ideal_s(size_bytes)


def test_updates_of_the_site_are_folded_before_the_cut_and_after_it(measured: dict[str, Row]) -> None:
    folded = {case: row["value"] for case, row in measured.items() if case.endswith("updates of the site folded")}
    before, _, after = folded.values()
    assert before > 0
    assert after > 0


def test_the_site_follows_the_versions_over_the_link(measured: dict[str, Row]) -> None:
    held = {case: row["value"] for case, row in measured.items() if case.endswith("versions held by the site")}
    before, _, after = held.values()
    assert before > 0
    assert after > 0


def test_the_cut_loses_nothing(measured: dict[str, Row]) -> None:
    assert measured["updates confirmed"]["value"] > 0
    assert measured["confirmed and neither folded nor refused"]["value"] == 0
