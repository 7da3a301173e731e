"""What came of a run: rows with goals, one sentence for people, and everything as JSON-able data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fedbus.bench.chaos import check
from fedbus.bench.chaos.acts import Done
from fedbus.bench.chaos.check import LedgerRecord, SiteRecord
from fedbus.bench.chaos.plan import AGGREGATOR, BROKER, ON_NODE, Act
from fedbus.bench.figures import Row, row
from fedbus.core.protocol.messages import JobState
from fedbus.core.rules.facts import Refused

LOST, DOUBLE = "updates lost", "updates not counted exactly once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A job after its end. `failures` are sentences by what should not have been; `sent` counts publishes by update."""

    sites: tuple[SiteRecord, ...]
    ledger: LedgerRecord
    failures: Mapping[str, Sequence[str]]
    sent: Mapping[str, int]

    @property
    def ok(self) -> bool:
        return not any(self.failures.values())

    @property
    def sentences(self) -> list[str]:
        """What should not have been, in words."""
        return [f"{what}: {sentence}" for what, sentences in self.failures.items() for sentence in sentences]

    @property
    def refused(self) -> Counter[str]:
        """Refused updates by reason; numbers in reasons differ and are left out."""
        reasons = (fact.reason for fact in self.ledger.facts if isinstance(fact, Refused))
        return Counter(re.sub(r"\d+", "N", reason) for reason in reasons)


def judge(
    sites: Sequence[SiteRecord],
    ledger: LedgerRecord,
    *,
    sent: Mapping[str, int],
    state: JobState = JobState.FINISHED,
    others: Mapping[str, Sequence[str]],
) -> Found:
    """Compare; `others` are failures that were found elsewhere, `state` is how the job should have ended."""
    failures: dict[str, Sequence[str]] = {
        LOST: check.lost(sites, ledger),
        DOUBLE: check.counted_wrongly(ledger),
        "versions with a gap": check.gaps(ledger),
        "receipts that disagree": check.disagreements(sites, ledger),
        "sites that went back": check.steps_back(sites),
        "jobs that did not end": [] if ledger.state == state else [f"the job is {ledger.state}, expected {state}"],
    }
    return Found(sites=tuple(sites), ledger=ledger, failures=failures | dict(others), sent=sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """So many seconds without a version, and the acts that went on meanwhile."""

    seconds: float
    causes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({', '.join(self.causes) or 'nothing was done'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One seed: what was done and what was found; `commits_at` in seconds since the epoch.

    `resyncs`: how often a site could not follow the model log and asked for a snapshot.
    """

    seed: int
    done: tuple[Done, ...]
    found: Found
    commits_at: tuple[float, ...]
    resyncs: int = 0

    @property
    def worst_wait(self) -> tuple[float, str]:
        """The longest time from an act to the next version, in seconds, and the act.

        Without the times in which the aggregator's log, which tells of versions, could not be written.
        """
        unlogged = [
            (d.at, d.at + d.deed.for_s) for d in self.done if d.deed.act is Act.FILL_LOG and d.deed.victim == AGGREGATOR
        ]
        waits = []
        for done in self.done:
            after = [at for at in self.commits_at if at >= done.at]
            if after and not any(since < after[0] and done.at < until for since, until in unlogged):
                waits.append((after[0] - done.at, str(done.deed.act)))
        return max(waits, default=(0.0, "nothing"))

    @property
    def longest_pause(self) -> Pause:
        """The longest time from one version to the next, and what went on in it.

        What happens to the broker or the aggregator stops everybody; where nothing did, all else that went on is named.
        """
        times = sorted(self.commits_at)
        since, until = max(pairwise(times), key=lambda pair: pair[1] - pair[0], default=(0.0, 0.0))
        meanwhile = [d.deed for d in self.done if d.at <= until and d.at + d.deed.for_s >= since]
        of_all = [deed for deed in meanwhile if deed.act in ON_NODE or deed.victim in (BROKER, AGGREGATOR)]
        causes = dict.fromkeys(f"{deed.act}: {deed.victim}" for deed in of_all or meanwhile)
        return Pause(seconds=until - since, causes=tuple(causes))

    def rows(self) -> list[Row]:
        """As `fedbus bench` prints them; a row with a goal is a promise."""
        name, found, ledger = f"seed {self.seed}", self.found, self.found.ledger
        wait_s, act = self.worst_wait
        return [
            *(row(f"{name}: {what}", len(sentences), "", 0) for what, sentences in found.failures.items()),
            row(f"{name}: versions", len(ledger.commits), ""),
            row(f"{name}: updates folded", len(ledger.folded), ""),
            row(f"{name}: updates refused", len(ledger.refused), ""),
            row(f"{name}: updates sent more than once by their site", _again(found.sent), ""),
            row(f"{name}: snapshots that sites asked for", self.resyncs, ""),
            row(f"{name}: longest time without a version after an act ({act})", wait_s, "s"),
            row(f"{name}: longest pause between two versions", self.longest_pause.seconds, "s"),
        ]

    def sentence(self) -> str:
        """The run in plain words."""
        found, acts = self.found, Counter(done.deed.act for done in self.done)
        wait_s, worst = self.worst_wait
        refused = ", ".join(f"{count} because {reason}" for reason, count in found.refused.most_common()) or "none"
        done = ", ".join(f"{acts[act]} x {act}" for act in Act if acts[act])
        return (
            f"seed {self.seed}: {len(self.done)} acts ({done}). {len(found.ledger.commits)} versions from"
            f" {len(found.ledger.folded)} updates; refused: {refused}; sent more than once by their site:"
            f" {_again(found.sent)}; longest time without a version after an act: {wait_s:.1f} s ({worst});"
            f" longest pause between two versions: {self.longest_pause};"
            f" lost {len(found.failures[LOST])}, double {len(found.failures[DOUBLE])};"
            f" the job is {found.ledger.state}."
        )

    def as_json(self) -> dict[str, Any]:
        """Everything, the schedule too."""
        return {
            "seed": self.seed,
            "ok": self.found.ok,
            "sentence": self.sentence(),
            "rows": self.rows(),
            "failures": self.found.sentences,
            "longest_pause_s": round(self.longest_pause.seconds, 1),
            "longest_pause_in": list(self.longest_pause.causes),
            "refused": dict(self.found.refused),
            "schedule": [
                {
                    "at_s": done.deed.at_s,
                    "act": str(done.deed.act),
                    "victim": done.deed.victim,
                    "for_s": done.deed.for_s,
                    "done_at": round(done.at, 3),
                    "note": done.note,
                }
                for done in self.done
            ],
        }


def _again(sent: Mapping[str, int]) -> int:
    return sum(times > 1 for times in sent.values())
