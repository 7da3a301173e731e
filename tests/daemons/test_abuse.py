"""Whatever a site sends: nothing crashes or grows, every message is accounted for, and good updates are folded."""

from __future__ import annotations

import asyncio

import pytest

from fedbus.bench.abuse import run
from fedbus.bench.abuse.attack import Target, attack
from fedbus.bench.abuse.cases import End
from fedbus.bench.abuse.logins import site
from fedbus.bench.figures import MIB
from fedbus.bus.post import Post
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.rules.facts import Folded, Refused

ABUSES, DUPLICATES = 300, 2000


@pytest.fixture
def target(house):
    """A job that cleveland trains."""
    house.start_aggregator()
    house.start_site("cleveland")
    job = house.submit(**run.SPEC)
    other = house.submit(**run.SPEC | {"name": "other", "sites": ["cleveland"]})
    for name in (job, other):
        house.aggregator.wait_for("version-committed", job=name)
    ledger = house.folder / "aggregator" / "ledger.sqlite3"
    return Target(job=job, other_job=other, url=house.running.url, ledger=ledger, pid=house.aggregator.pid)


def test_a_site_that_sends_anything_at_all_harms_nobody(house, target):
    # given a running job, when one site sends what it likes and another one works
    outcome = asyncio.run(
        attack(target, abuser="site-a", good="site-b", abuses=ABUSES, duplicates=DUPLICATES, seed=20_260_101)
    )
    # then every abuse lies in fedbus.dead with its reason or was refused with a receipt, or is an update that was begun
    assert outcome.unaccounted == []
    unfinished = outcome.dropped + outcome.refused_unfinished + outcome.awaited
    assert outcome.sent[End.DEAD] > 0
    assert outcome.sent[End.REFUSED] > 0
    assert outcome.sent[End.UNFINISHED] == unfinished > 0
    assert outcome.awaited <= 16
    # and every good update was folded, once
    assert outcome.good > 0
    assert outcome.not_folded == []
    folded = [fact for fact in house.facts(target.job) if isinstance(fact, Folded)]
    assert sum(fact.update_id.site == "site-b" for fact in folded) == outcome.good
    # (what the abuser sent within the bounds of a site's first updates counts as any site's does)
    assert {fact.update_id.site for fact in folded} - {"site-a"} == {"cleveland", "site-b"}
    # and duplicates were answered now and then, not every time
    assert 0 < outcome.receipts_repeated < DUPLICATES / 20
    # and the aggregator is the one it was, and no larger
    assert house.aggregator.alive
    assert outcome.resident_after - outcome.resident_before < run.GROWTH_GOAL_MIB * MIB


def test_what_a_site_was_told_is_safe_and_never_became_whole_is_refused_at_the_end_of_the_job(house, target):
    # given a manifest that was confirmed, without any chunk
    update_id = "site-a:0badc0de:1"
    manifest = m.UpdateManifest(
        job=target.job,
        update_id=update_id,
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1),
        layout_digest="",
        frames=3,
        body_bytes=3,
    )

    async def send():
        async with site("site-a", target.url("site-a")) as by_hand:
            await by_hand.take_part(target.job)
            await by_hand.publisher.publish(Post().from_trainer(manifest, site="site-a"))

    asyncio.run(send())
    # when the job ends
    house.ask(lambda client: client.abort(target.job, "wrong data"))
    # then it is refused on record
    refused = house.aggregator.wait_for("update-refused", update=update_id)
    assert refused["reason"] == "the job is aborted"
    assert Refused(update_id=m.UpdateId.parse(update_id), reason="the job is aborted") in house.facts(target.job)
