"""`fedbus bench abuse`: a private broker and one job; a site trains, another sends updates by hand, a third attacks."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from fedbus.bench.abuse.attack import CHUNK_BYTES, Outcome, Target, attack
from fedbus.bench.abuse.cases import End
from fedbus.bench.figures import MIB, Row, lines_of, row
from fedbus.console.client import Client
from fedbus.console.settings import SubmitterSettings
from fedbus.core.spec.training import TrainingSpec
from fedbus.local.federation import LocalFederation

TRAINS, WORKS, ATTACKS = "mercy", "ucsf", "mallory"
GROWTH_GOAL_MIB = 64
LATE_S = 2.0
SPEC: dict[str, object] = {
    "name": "abused",
    "task": "synthetic",
    "task_config": {"numel": 20_000, "step_s": 0.5},  # large enough for a bomb to pass for a plane of it
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 1.0, "evaluate": False},
    "chunk_bytes": CHUNK_BYTES,
    "stop": {"versions": 1_000_000},
}


def rows(*, deliveries: int, duplicates: int, seed: int) -> list[Row]:
    """Attack with so many abuses and duplicates; rows of case, value, unit, goal, met."""
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "data" / "none").touch()
        with LocalFederation(folder, sites=(TRAINS, WORKS, ATTACKS)) as federation:
            target = start(federation)
            before = len(lines_of(federation.daemons[0], "update-folded"))
            outcome = asyncio.run(
                attack(target, abuser=ATTACKS, good=WORKS, abuses=deliveries, duplicates=duplicates, seed=seed)
            )
            alive = federation.daemons[0].alive
            trained = [e for e in lines_of(federation.daemons[0], "update-folded")[before:] if e["site"] == TRAINS]
            counted = sum(line["let_go"] for line in lines_of(federation.daemons[0], "dead-letter"))
    return [
        row("aggregator: crashes", 0 if alive else 1, "", 0),
        *rows_of(outcome),
        row("abuses let go, counted in the log", counted, ""),
        _trained(len(trained)),
    ]


def start(federation: LocalFederation) -> Target:
    """Start a job that trains."""
    aggregator = federation.start_aggregator()
    aggregator.wait_for("aggregator-ready")
    federation.start_site(TRAINS, federation.folder / "data").wait_for("site-ready")

    async def submit(spec: dict[str, object]) -> str:
        async with Client(SubmitterSettings.load(broker_url=federation.url("submitter"))) as client:
            return await client.submit(TrainingSpec.parse(spec))

    job, other = asyncio.run(submit(SPEC)), asyncio.run(submit(SPEC | {"name": "other", "sites": [TRAINS]}))
    for name in (job, other):
        aggregator.wait_for("version-committed", job=name)
    ledger = federation.folder / "aggregator" / "ledger.sqlite3"
    return Target(job=job, other_job=other, url=federation.url, ledger=ledger, pid=aggregator.pid)


def rows_of(outcome: Outcome) -> list[Row]:
    """The figures of an attack."""
    sent, measured = outcome.sent.total(), outcome.abuses_measured
    growth = (outcome.resident_after - outcome.resident_before) / MIB
    found = [
        row("abuses sent", sent, ""),
        row("abuses in fedbus.dead with a reason", outcome.sent[End.DEAD] - outcome.let_go, ""),
        row("abuses let go: too many at once", outcome.let_go, ""),
        row("strange updates decided or dead", outcome.sent[End.DECIDED], ""),
        row("words that cost nobody anything", outcome.sent[End.TAKEN], ""),
        row("abuses refused with a receipt", outcome.sent[End.REFUSED] + outcome.refused_unfinished, ""),
        row("updates begun and never finished: dropped", outcome.dropped, ""),
        row("updates begun and never finished: still awaited", outcome.awaited, "", 16),
        row("abuses with another end", len(outcome.unaccounted), "", 0),
        row("abuses taken per second", measured / outcome.abuse_s, "1/s"),
        row("messages that the broker returned", outcome.returned, ""),
        row("good updates between them", outcome.good, ""),
        row("good updates that were not folded", len(outcome.not_folded), "", 0),
        row("good update published → receipt, median", statistics.median(outcome.receipt_s), "s"),
        row("good update published → receipt, worst", max(outcome.receipt_s), "s", LATE_S),
    ]
    if outcome.duplicates:
        found += [
            row("copies of one update", outcome.duplicates, ""),
            row("copies sent and gone per second", outcome.duplicates / outcome.duplicates_s, "1/s"),
            row("receipts repeated for them", outcome.receipts_repeated, ""),
        ]
    return [
        *found,
        row("aggregator: resident memory before", outcome.resident_before / MIB, "MiB"),
        row("aggregator: resident memory grew by", growth, "MiB", GROWTH_GOAL_MIB),
        row("aggregator: peak memory grew by", (outcome.peak_after - outcome.peak_before) / MIB, "MiB"),
    ]


def _trained(updates: int) -> Row:
    return row("updates of the site that trained meanwhile", updates, "")
