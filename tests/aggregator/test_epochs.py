"""Who reads which version: a new epoch when a site is out, the same one after a restart, keys from the snapshot on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fedbus.aggregator.model.epochs import Epochs
from fedbus.errors import SealError
from fedbus.store.ledger import Ledger
from fedbus.trust.epochs import MOST_EPOCHS, open_keys
from fedbus.trust.sealing import PublicKey, SealKeys, announced
from fedbus.trust.suites import X25519

SITES = {name: SealKeys.make() for name in ("site-a", "site-b", "site-c")}


async def at_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The store's thread without a thread."""
    return function(*args, **kwargs)


def seal_key_of(site: str) -> PublicKey:
    return SITES[site].public[X25519] if site in SITES else announced({}, X25519)


class House:
    """An aggregator's epochs, which can be started anew, and what its sites were told."""

    def __init__(self, ledger: Ledger, **settings: Any) -> None:
        self.ledger = ledger
        self.settings = settings
        self.told: list[str] = []
        self.epochs = self._new()

    def _new(self) -> Epochs:
        where: dict[str, Any] = {"federation": "hearts", "ledger": self.ledger, "store": at_once}
        return Epochs("heart", **where, seal_key_of=seal_key_of, **self.settings)

    async def tell(self) -> None:
        for site in sorted(SITES):
            if self.epochs.is_member(site):
                self.keys(site)
                self.told.append(site)

    async def restart(self) -> None:
        self.epochs = self._new()
        await self.epochs.open(self.tell)

    def keys(self, site: str) -> list[int]:
        """The epochs that a site is given; it can open them."""
        text = self.epochs.keys_for(site)
        return [key.number for key in open_keys(text, SITES[site], federation="hearts", job="heart", site=site)]

    async def let_in(self, *sites: str) -> bool:
        """They are let in and told their keys; whether a snapshot is wanted."""
        wanted = [await self.epochs.let_in(site) for site in sites]
        for site in sites:
            self.keys(site)
        return any(wanted)

    async def publish(self, version: int, *, snapshot: bool = False) -> int:
        """A version; returns its epoch."""
        epoch = await self.epochs.for_version()
        self.epochs.written(version, epoch, snapshot=snapshot)
        return epoch.number


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        house = House(ledger)
        await house.restart()
        yield house


async def test_all_versions_are_of_one_epoch_while_nobody_leaves(house: House) -> None:
    await house.let_in("site-a", "site-b")
    assert [await house.publish(0, snapshot=True), await house.publish(1)] == [0, 0]
    await house.let_in("site-c")
    assert await house.publish(2) == 0


async def test_the_next_version_after_a_leave_is_of_a_new_epoch_whose_key_the_others_have_before(house: House) -> None:
    await house.let_in("site-a", "site-b")
    await house.publish(0, snapshot=True)
    house.told.clear()
    await house.epochs.out("site-b")
    assert house.told == []
    assert await house.publish(1) == 1
    assert house.told == ["site-a"]
    assert house.keys("site-a") == [0, 1]


async def test_sites_that_leave_together_begin_one_epoch(house: House) -> None:
    await house.let_in("site-a", "site-b", "site-c")
    await house.publish(0, snapshot=True)
    for site in ("site-b", "site-c", "site-b"):
        await house.epochs.out(site)
    assert await house.publish(1) == 1


async def test_whoever_never_had_the_key_begins_no_epoch(house: House) -> None:
    await house.let_in("site-a")
    await house.publish(0, snapshot=True)
    await house.epochs.out("site-b")
    assert await house.publish(1) == 0


async def test_a_site_that_is_back_is_given_what_the_newest_snapshot_needs(house: House) -> None:
    await house.let_in("site-a", "site-b")
    await house.publish(0, snapshot=True)
    await house.epochs.out("site-b")
    await house.publish(1)
    await house.let_in("site-b")
    assert house.keys("site-b") == [0, 1]
    await house.publish(2, snapshot=True)
    assert house.keys("site-b") == [1]


async def test_a_site_that_leaves_and_joins_without_end_fills_nothing(house: House) -> None:
    """Keys that nothing was sealed with are let go: the others can still open what the newest snapshot needs."""
    await house.let_in("site-a", "site-b")
    first = await house.publish(0, snapshot=True)

    for _ in range(2 * MOST_EPOCHS):
        await house.epochs.out("site-b")
        await house.let_in("site-b")
        house.keys("site-b")

    second = await house.publish(1)
    assert second > first
    assert house.keys("site-a") == [first, second]
    assert len(house.ledger.trust.epochs("heart")) == 2


async def test_a_restart_goes_on_in_the_same_epoch_with_the_same_keys(house: House) -> None:
    await house.let_in("site-a", "site-b")
    await house.publish(0, snapshot=True)
    before = house.epochs.newest
    house.ledger.mark_published("heart", 0, at=1.0)
    await house.restart()
    assert house.epochs.newest == before
    assert house.epochs.published == 0


async def test_a_site_that_left_while_nobody_was_there_is_out_after_the_restart(house: House) -> None:
    # given a site that took part, and an aggregator that does not know any more who has which key
    await house.let_in("site-a", "site-b")
    await house.publish(0, snapshot=True)
    for site in ("site-a", "site-b"):
        house.ledger.add_participant("heart", site, at=1.0)
    await house.restart()
    # when it reads that one has left
    await house.epochs.out("site-b")
    # then that one reads on no more
    assert await house.publish(1) == 1


async def test_a_kill_right_after_a_leave_forgets_no_leave(house: House) -> None:
    await house.let_in("site-a", "site-b")
    await house.publish(0, snapshot=True)
    await house.epochs.out("site-b")
    await house.restart()
    assert await house.publish(1) == 1


async def test_nothing_is_sealed_to_a_site_that_has_announced_no_key(house: House) -> None:
    await house.epochs.let_in("site-x")
    with pytest.raises(SealError, match="expected a seal key"):
        house.epochs.keys_for("site-x")


# ------------------------------------------------------------------ earlier versions are not for joiners


@pytest.fixture
async def closed(tmp_path: Path) -> AsyncIterator[House]:
    """Version 0 is there, of which the sites a and b have the key."""
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        house = House(ledger, anew_for_joiners=True)
        await house.restart()
        assert not await house.let_in("site-a", "site-b")
        await house.publish(0, snapshot=True)
        yield house


async def test_a_joiner_gets_no_earlier_key_and_a_snapshot(closed: House) -> None:
    await closed.publish(1)
    assert await closed.let_in("site-c")
    assert closed.keys("site-c") == [1]
    assert await closed.publish(1, snapshot=True) == 1
    assert closed.keys("site-c") == [1]


async def test_a_member_that_accepts_again_is_no_joiner(closed: House) -> None:
    assert not await closed.let_in("site-b")


async def test_a_site_that_left_is_a_joiner_when_it_is_back(closed: House) -> None:
    await closed.epochs.out("site-b")
    assert await closed.publish(1) == 1
    assert await closed.let_in("site-b")
    assert closed.keys("site-b") == [2]


async def test_a_restart_gives_nobody_an_earlier_key(closed: House) -> None:
    await closed.let_in("site-c")
    await closed.publish(0, snapshot=True)
    await closed.restart()
    assert await closed.let_in("site-a")
    assert closed.keys("site-a") == [2]


async def test_who_comes_right_after_somebody_left_gets_no_earlier_key(closed: House) -> None:
    await closed.let_in("site-a", "site-b")
    await closed.publish(0, snapshot=True)
    await closed.epochs.out("site-b")

    assert await closed.let_in("site-c")

    epoch = await closed.publish(1, snapshot=True)
    assert closed.keys("site-c") == [epoch]


async def test_a_fresh_epoch_that_nothing_was_sealed_in_is_followed_by_a_fresh_one(closed: House) -> None:
    await closed.let_in("site-a")
    await closed.publish(0, snapshot=True)
    await closed.let_in("site-b")
    await closed.epochs.out("site-b")
    await closed.restart()
    await closed.let_in("site-a")

    assert 0 not in closed.keys("site-a")


async def test_a_snapshot_comes_before_there_are_more_keys_than_a_site_can_be_given(house: House) -> None:
    await house.let_in("site-a", "site-b")
    snapshots, kept = 0, []
    for version in range(2 * MOST_EPOCHS):
        snapshot = version == 0 or house.epochs.want_snapshot
        kept = [await house.publish(version, snapshot=True)] if snapshot else [*kept, await house.publish(version)]
        snapshots += snapshot
        await house.epochs.out("site-b")
        await house.let_in("site-b")
        assert set(kept) <= set(house.keys("site-b"))
    assert 2 <= snapshots <= 10
