"""Receipts: what became of an update, durable together with the facts, told to its site, told again when it asks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from fedbus.core.facts import Fact
from fedbus.core.messages import Outcome, Receipt, UpdateId
from services.aggregator import history
from services.aggregator.tools import Tools


async def give(receipt: Receipt, tools: Tools, *, facts: Sequence[Fact] = ()) -> int:
    """Record a decision, then tell the site; returns the sequence number of the last fact."""
    return await give_all([receipt], tools, facts=facts)


async def give_all(given: Sequence[Receipt], tools: Tools, *, facts: Sequence[Fact] = ()) -> int:
    """Record decisions of one job in one write, then tell the sites; returns the sequence number of the last fact."""
    sequence = await tools.store(
        tools.ledger.record_facts,
        given[0].job,
        [history.to_row(fact) for fact in facts],
        decided={receipt.update_id: dataclasses.asdict(receipt) for receipt in given},
        at=time.time(),
    )
    for receipt in given:
        await tools.announcer.tell(UpdateId.parse(receipt.update_id).site, receipt)
    return sequence


async def repeat(update_id: str, tools: Tools) -> None:
    """An update came again, so its site has lost the receipt. One that is not decided yet gets its receipt later."""
    found = await tools.store(tools.ledger.receipt, update_id)
    if found is not None:
        receipt = Receipt(**{**found, "outcome": Outcome(found["outcome"])})
        await tools.announcer.tell(UpdateId.parse(update_id).site, receipt)
