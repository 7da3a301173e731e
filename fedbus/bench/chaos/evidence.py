"""What a run left behind, read: log lines of every process, facts and receipts of the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedbus.bench.chaos.check import LedgerRecord, SiteRecord
from fedbus.bench.figures import Logged, lines_of, time_of
from fedbus.core.protocol import events
from fedbus.core.protocol.messages import Outcome, Receipt
from fedbus.errors import FedbusError, StoreError
from fedbus.store.state_reader import StateReader


def lines(daemons: Iterable[Logged], job: str, event: str) -> list[dict[str, Any]]:
    """Log lines of an event about a job, of all these processes in their order."""
    return [line for daemon in daemons for line in lines_of(daemon, event) if line.get("job") == job]


def site_record(site: str, daemons: Iterable[Logged], job: str) -> SiteRecord:
    """What a site wrote down, in the logs of all its processes."""
    processes = list(daemons)
    receipts = lines(processes, job, "update-receipt")
    published = lines(processes, job, "update-published")
    return SiteRecord(
        site=site,
        confirmed=tuple(e["update"] for e in published),
        published_at=tuple(map(time_of, published)),
        connected_at=connected_at(processes),
        receipts=tuple((e["update"], e["outcome"]) for e in receipts),
        held=tuple(tuple(e["version"] for e in lines([p], job, "version-held")) for p in processes),
    )


def connected_at(processes: Iterable[Logged]) -> float:
    """When the newest process of a daemon last came to reach the broker; 0.0 for never."""
    newest = list(processes)[-1:]
    return max((time_of(line) for daemon in newest for line in lines_of(daemon, "broker connected")), default=0.0)


def ledger_record(state_dir: Path, job: str) -> LedgerRecord:
    """What the ledger says. Raises StoreError when it has no such job."""
    with StateReader(state_dir) as state:
        row = next((row for row in state.ledger.jobs() if row.job == job), None)
        if row is None:
            raise StoreError(f"the ledger in {state_dir} has no job {job}")
        return LedgerRecord(
            state=row.state,
            facts=tuple(row.fact for row in state.ledger.facts(job)),
            outcomes={update: receipt["outcome"] for update, receipt in state.ledger.receipts(job).items()},
            published=tuple(state.ledger.published(job)),
        )


def receipts_in(aggregators: Iterable[Logged], job: str) -> list[Receipt]:
    """The receipts that follow from the aggregator's log lines."""
    processes = list(aggregators)
    folded = [
        Receipt(job=job, update_id=line["update"], outcome=Outcome.FOLDED, staleness=line["staleness"])
        for line in lines(processes, job, events.UpdateFolded.kind)
    ]
    refused = [
        Receipt(job=job, update_id=line["update"], outcome=Outcome.REFUSED, reason=line["reason"])
        for line in lines(processes, job, events.UpdateRefused.kind)
    ]
    return [*folded, *refused]


def replay_failures(state_dir: Path, job: str) -> list[str]:
    """What of a replay from version 0 is not bit-identical to the checkpoints; bodies must have been kept."""
    import torch

    from fedbus.replay.verification import verify

    torch.set_num_threads(1)  # as the aggregator does
    with StateReader(state_dir) as state:
        try:
            verdict, _ = verify(state, job)
        except FedbusError as exc:
            return [str(exc)]
    return [] if verdict.identical and verdict.from_version == 0 else [verdict.says]
