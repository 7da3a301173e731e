"""A job whose model log is sealed: who is told which keys when sites come, ask, decline and are put out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fedbus.aggregator.model.epochs import Epochs
from fedbus.aggregator.site_numbers import SiteNumbers
from fedbus.bus.topology import models_stream
from fedbus.core.protocol import messages as m
from fedbus.errors import SealError
from fedbus.trust.epochs import open_keys
from fedbus.trust.roster import Roster
from fedbus.trust.sealing import SealKeys, announced
from fedbus.trust.suites import X25519
from tests.aggregator.test_job_runner import House
from tests.aggregator.test_site_desk import Desk, at_once

KEYS = SealKeys.make()


class SealedHouse(House):
    """Its sites share one seal key; site-z has none."""

    def __init__(self, folder: Path, *, anew_for_joiners: bool = False) -> None:
        super().__init__(folder)
        (folder / "roster.json").write_text(
            Roster(federation="hearts", numbers={"site-a": 0, "site-b": 1, "site-z": 2, "late": 3}).text()
        )
        self.log.stream = models_stream("heart", "0" * 32, "7")
        where: dict[str, Any] = {"federation": "hearts", "ledger": self.ledger, "store": self.store}
        self.epochs = Epochs("heart", **where, seal_key_of=self.seal_key_of, anew_for_joiners=anew_for_joiners)
        self.runner.participants._epochs = self.epochs
        self.runner.participants._tools = dataclasses.replace(self.runner._tools, numbers=SiteNumbers(folder))

    def seal_key_of(self, site: str) -> Any:
        return announced({} if site == "site-z" else KEYS.texts(), X25519)

    def epochs_told(self, site: str) -> list[int]:
        """The epochs whose keys the newest start for a site brings; [] when it got none."""
        starts = [said for to, said in self.announcer.told if to == site and isinstance(said, m.JobStarted)]
        if not starts:
            return []
        keys = open_keys(starts[-1].keys, KEYS, federation="hearts", job="heart", site=site)
        return [key.number for key in keys]

    def ended_for(self, site: str) -> str:
        """Why a site was told that the job is over for it."""
        return next(said.reason for to, said in self.announcer.told if to == site and isinstance(said, m.JobEnded))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[SealedHouse]:
    """The job runs with two sites."""
    house = SealedHouse(tmp_path)
    await house.trains("site-a", "site-b")
    yield house
    house.ledger.__exit__(None, None, None)


async def test_the_start_brings_the_keys(house: SealedHouse) -> None:
    assert house.epochs_told("site-a") == house.epochs_told("site-b") == [0]


async def test_a_site_that_declines_or_is_put_out_reads_no_later_version(house: SealedHouse) -> None:
    await house.epochs.for_version()
    await house.declines("site-b", "enough")
    await house.epochs.for_version()
    assert (house.epochs_told("site-a"), house.epochs_told("site-b")) == ([0, 1], [0])
    await house.runner.participants.out("site-a")
    assert house.epochs.newest.number == 2


async def test_a_site_that_asks_gets_its_keys_again_but_not_without_end(house: SealedHouse) -> None:
    before = len(house.announcer.told)
    for _ in range(9):
        await house.runner.on_resync(m.ResyncRequest(site="site-a", job="heart", reason="no key"))
    starts = [said for _, said in house.announcer.told[before:] if isinstance(said, m.JobStarted)]
    assert len(starts) == 3


async def test_a_site_that_the_broker_refuses_the_log_to_is_told_so(house: SealedHouse) -> None:
    await house.accepts("late")
    assert "was enrolled after this job began" in house.ended_for("late")
    assert house.epochs_told("late") == []
    assert "late" not in house.runner.life.accepted_sites


async def test_a_site_that_no_key_can_be_sealed_to_is_told_so(house: SealedHouse) -> None:
    await house.accepts("site-z")
    assert "expected a seal key" in house.ended_for("site-z")
    with pytest.raises(SealError):
        house.epochs.keys_for("site-z")


async def test_a_site_that_left_is_told_nothing_until_it_accepts_anew(house: SealedHouse) -> None:
    await house.epochs.for_version()
    view = house.membership.get("site-b")
    assert view is not None
    house.membership.left(m.Leave(site="site-b", session=view.session), now=time.monotonic())
    await house.runner.participants.out("site-b")
    await house.runner.participants.welcome("site-b")
    assert house.epochs_told("site-b") == [0]
    await house.accepts("site-b")
    assert house.epochs_told("site-b") == [0, 1]


async def test_a_site_that_leaves_and_one_that_is_revoked_begin_a_new_epoch_of_every_job(tmp_path: Path) -> None:
    async def tell() -> None:
        """The jobs have not begun."""

    desk = Desk(tmp_path, "job-1")
    where: dict[str, Any] = {"federation": "hearts", "ledger": desk.ledger, "store": at_once}
    epochs = Epochs("job-1", **where, seal_key_of=lambda site: KEYS.public[X25519])
    await epochs.open(tell)
    desk.jobs.runners["job-1"].participants._epochs = epochs
    for site in ("site-a", "site-b"):
        await desk.joins(site)
        await epochs.let_in(site)
        epochs.keys_for(site)
    # when one is revoked
    await desk.desk.put_out("site-b", "its certificate was revoked")
    assert epochs.newest.number == 1
    await desk.desk.put_out("site-b", "its certificate was revoked")
    assert epochs.newest.number == 1
    # and the other one leaves
    epochs.keys_for("site-a")
    await desk.says(m.Leave(site="site-a", session="s1"))
    assert epochs.newest.number == 2


async def test_a_site_that_comes_and_goes_has_no_snapshot_made_each_time(tmp_path: Path) -> None:
    """Where earlier versions are not for joiners each of them needs one: the whole model, sent to all."""
    house = SealedHouse(tmp_path, anew_for_joiners=True)
    await house.trains("site-a", "site-b")
    await house.epochs.for_version()
    made = 0
    for _ in range(20):
        await house.runner.participants.out("site-b")
        await house.runner.on_answer(m.OfferAnswer(site="site-b", job="heart", accepted=True))
        await house.epochs.for_version()
        made += house.runner._resyncs.due(now=time.monotonic() + 3600.0 * made)
    house.ledger.__exit__(None, None, None)
    assert 1 <= made <= 5
