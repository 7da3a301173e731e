"""Receipts: what became of an update, durable together with the facts, told to its site, told again when it asks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence

from fedbus.aggregator.tools import Tools
from fedbus.core.protocol.messages import Outcome, Receipt, UpdateId
from fedbus.core.rules.facts import Committed, Fact, Folded, Refused


async def give(receipt: Receipt, tools: Tools, *, facts: Sequence[Fact] = ()) -> int:
    """Record a decision, then tell the site; returns the sequence number of the last fact."""
    sequence = await record(receipt.job, [receipt], tools, facts=facts)
    await tell([receipt], tools)
    return sequence


async def record(job: str, given: Sequence[Receipt], tools: Tools, *, facts: Sequence[Fact] = ()) -> int:
    """Record decisions of one job in one write; returns the sequence number of the last fact."""
    sequence: int = await tools.store(
        tools.ledger.record_facts,
        job,
        facts,
        decided={receipt.update_id: dataclasses.asdict(receipt) for receipt in given},
        at=time.time(),
    )
    return sequence


async def tell(given: Sequence[Receipt], tools: Tools) -> None:
    """Tell the sites what was recorded. After a kill in between they send again, and `repeat` tells them."""
    for receipt in given:
        await tools.announcer.tell(UpdateId.parse(receipt.update_id).site, receipt)


async def repeat(job: str, update_id: str, tools: Tools) -> None:
    """An update came again, so its site has lost the receipt. One that is not decided yet gets its receipt later.

    Neither what is written nor what is told for the first time waits for it.
    """
    found = await tools.compute(tools.ledger.receipt, job, update_id)
    if found is not None:
        receipt = Receipt(**{**found, "outcome": Outcome(found["outcome"])})
        tools.announcer.answer(UpdateId.parse(update_id).site, receipt)


def receipt_of(job: str, fact: Folded | Refused) -> Receipt:
    """What the site of an update is told."""
    if isinstance(fact, Folded):
        return Receipt(
            job=job,
            update_id=str(fact.update_id),
            outcome=Outcome.FOLDED,
            staleness=fact.staleness,
            rebase=fact.rebase,
        )
    return Receipt(job=job, update_id=str(fact.update_id), outcome=Outcome.REFUSED, reason=fact.reason)


def by_version(job: str, facts: Iterable[Fact]) -> dict[int, list[Receipt]]:
    """The receipts that each version's manifest carries: of all that was decided since the version before it."""
    found: dict[int, list[Receipt]] = {}
    version = 1
    for fact in facts:
        if isinstance(fact, Committed):
            version = fact.version + 1
        else:
            found.setdefault(version, []).append(receipt_of(job, fact))
    return found
