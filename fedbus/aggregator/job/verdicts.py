"""Refusing an update, one way for whoever refuses it: on record, told to its site, its body gone, said to watchers.

A kill in between leaves a decided update: its site sends it again and is told (`receipts.repeat`), and what is left of
its body goes with the next restart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedbus.aggregator.job import receipts
from fedbus.aggregator.tools import Tools
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.rules.facts import Refused

Drop = Callable[[str], None]
"""Deletes the body of an update; runs on the compute thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What was told, and the sequence number of the ledger's last fact."""

    receipt: m.Receipt
    sequence: int


async def refuse(manifest: m.UpdateManifest, reason: str, *, tools: Tools, drop: Drop) -> Refusal:
    """Refuse an update for good. Initial params and local models are none: it is told, and leaves no fact."""
    fact = Refused(update_id=m.UpdateId.parse(manifest.update_id), reason=reason)
    receipt, site = receipts.receipt_of(manifest.job, fact), fact.update_id.site
    kind = manifest.kind
    sequence = await receipts.give(receipt, tools, facts=[fact] if kind is m.UpdateKind.DELTA else [])
    await tools.compute(drop, manifest.update_id)
    refused = events.UpdateRefused(
        site=site,
        update=manifest.update_id,
        reason=reason,
        initial=kind is m.UpdateKind.INITIAL,
        local=kind is m.UpdateKind.LOCAL,
        body_bytes=manifest.body_bytes,
        audit=manifest.audit,
    )
    await tools.announcer.event(manifest.job, refused)
    return Refusal(receipt=receipt, sequence=sequence)
