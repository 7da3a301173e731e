"""Receipts: what became of an update, durable together with the facts, told to its site, told again when it asks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from fedbus.aggregator.tools import Tools
from fedbus.core.protocol.messages import Outcome, Receipt, UpdateId
from fedbus.core.rules.facts import Fact
from fedbus.store import history


async def give(receipt: Receipt, tools: Tools, *, facts: Sequence[Fact] = ()) -> int:
    """Record a decision, then tell the site; returns the sequence number of the last fact."""
    sequence = await record([receipt], tools, facts=facts)
    await tell([receipt], tools)
    return sequence


async def record(given: Sequence[Receipt], tools: Tools, *, facts: Sequence[Fact] = ()) -> int:
    """Record decisions of one job in one write; returns the sequence number of the last fact."""
    sequence: int = await tools.store(
        tools.ledger.record_facts,
        given[0].job,
        [history.to_row(fact) for fact in facts],
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
