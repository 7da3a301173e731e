"""A federation of three hospitals as the aggregator would answer it: what pages are tried with, without a broker."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from fedbus.console.fetch import AskedInVainError
from fedbus.core.protocol import answers as a
from fedbus.core.protocol.statistics import Finding
from fedbus.core.spec.head import JobSpec

NOW = 1_800_000_000.0
SPEC = {
    "name": "heart",
    "task": "heart_disease",
    "local": {"steps": 20, "batch_size": 32, "learning_rate": 0.05},
    "stop": {"versions": 40},
}
HEAD = "117:" + "ab12" * 16


def sites() -> list[a.SiteLine]:
    training = a.Doing(
        activity="training", version=12, step=40, steps=120, device="cuda:0", memory_used_bytes=9_400_000_000,
        memory_bytes=24_000_000_000,
    )  # fmt: skip
    tasks = ("heart_disease", "segmentation")
    return [
        a.SiteLine(
            site="mercy", state="lost", since_s=840, heard_s=850, reason="nothing heard for 30 s", device="cpu",
            fedbus_version="0.9.0", tasks=tasks,
        ),
        a.SiteLine(
            site="ucsf", state="online", since_s=7300, heard_s=1.2, device="cuda", fedbus_version="0.9.0", tasks=tasks,
            jobs={"heart-0000aaaa": training, "heart-0000bbbb": a.Doing(activity="queued", detail="1 before it")},
        ),
        a.SiteLine(
            site="va-long-beach", state="online", since_s=7100, heard_s=0.4, device="cpu", fedbus_version="0.8.2",
            tasks=("heart_disease",), clock_ahead_s=-840.0,
            jobs={"heart-0000aaaa": a.Doing(activity="waiting for the next version", version=12, device="cpu")},
        ),
    ]  # fmt: skip


def history(versions: int = 13, *, top: float = 0.84) -> list[a.VersionLine]:
    means = [top - 0.3 * math.exp(-version / 5) for version in range(versions)]
    return [
        a.VersionLine(
            version=version, at=NOW - 600 + 40 * version, seconds=40.0 * version, updates=2,
            contributors=("ucsf", "va-long-beach"), means={"accuracy": mean, "loss": 1.2 - mean},
            scores={"ucsf": {"accuracy": mean + 0.02, "loss": 0.4}},
        )
        for version, mean in enumerate(means)
    ]  # fmt: skip


def training(job: str = "heart-0000aaaa", **changes: object) -> a.JobDetail:
    of_sites = {
        "mercy": a.SiteInJob(updates=3, mean_staleness=4.0, num_examples=120, influence=0.08, share=0.2, state="lost"),
        "ucsf": a.SiteInJob(
            updates=14, refused=1, mean_staleness=0.6, num_examples=303, influence=0.52, share=0.45, state="online",
            activity="training", version=12,
        ),
        "va-long-beach": a.SiteInJob(
            updates=12, mean_staleness=0.9, num_examples=200, influence=0.4, share=0.35, state="online",
            activity="waiting for the next version", version=12,
        ),
    }  # fmt: skip
    known: dict[str, object] = {
        "job": job, "name": "heart", "task": "heart_disease", "state": "running", "version": 12, "updates": 29,
        "says": "waiting for 1 more update (1 of 2 in the buffer); training: ucsf (step 40/120); offline: mercy (since "
        "14 min)", "submitted_by": "submitter", "submitted_at": NOW - 640, "started_at": NOW - 600, "spec": SPEC,
        "sites": of_sites, "means": {"accuracy": 0.83, "loss": 0.41}, "declined": {"mercy": "hours: 20:00 to 06:00"},
        "refusals": (a.Refusals(reason="not finite", updates=1),),
    }  # fmt: skip
    return a.JobDetail(**(known | changes))  # type: ignore[arg-type]


def ended(job: str = "heart-0000bbbb") -> a.JobDetail:
    score = {"metrics": {"accuracy": 0.81}, "num_examples": 60}
    result = {
        "version": 40, "reason": "40 versions", "scores": {"mercy": score, "ucsf": score},
        "best": {"version": 36, "metric": "accuracy", "value": 0.845, "scores": {"ucsf": score}, "exported": "x"},
    }  # fmt: skip
    return training(job, state="finished", says="", ended_at=NOW - 100, result=result, version=40, means=None)


def evaluation(job: str = "compare-0000cccc") -> a.JobDetail:
    def scored(model: str, value: float) -> a.ScoredModel:
        interval = a.Interval(value=value, low=value - 0.04, high=value + 0.04, cases=60)
        change = a.Interval(value=0.03, low=-0.01, high=0.07, cases=60)
        score = a.SiteScore(
            metrics={"accuracy": value}, num_examples=60, intervals={"accuracy": interval},
            differences={"accuracy": change},
        )  # fmt: skip
        return a.ScoredModel(
            model=model, means={"accuracy": value}, scores={"ucsf": score, "va-long-beach": score},
            failed={"mercy": "it was not there"}, intervals={"accuracy": interval}, differences={"accuracy": change},
        )  # fmt: skip

    models = [{"job": "heart-0000aaaa", "version": "last"}, {"job": "heart-0000bbbb", "version": "best"}]
    return a.JobDetail(
        job=job, name="compare", task="heart_disease", state="finished", submitted_at=NOW - 50, ended_at=NOW - 20,
        spec={"kind": "evaluate", "compare": True, "models": models, "metric": "accuracy"},
        models=(scored("heart-0000aaaa last", 0.81), scored("heart-0000bbbb best", 0.84)),
    )  # fmt: skip


def checked(job: str = "look-0000dddd") -> a.JobDetail:
    findings = (
        Finding(severity="fault", kind="orientation", sites=("mercy",), text="mercy stores its images upside down"),
        Finding(severity="warning", kind="labels", sites=("ucsf",), text="ucsf has few of class 2", advice="look"),
    )
    check = a.CheckReport(findings=findings, cannot={"va-long-beach": "it left"})
    return a.JobDetail(
        job=job, name="look", task="heart_disease", state="finished", spec={"kind": "data-check"}, ended_at=NOW,
        check=check,
    )  # fmt: skip


@dataclass(kw_only=True)
class FakeSource:
    """Answers like the aggregator, keeps what it was asked to do. Raises `trouble` at a submit, if there is some."""

    details: list[a.JobDetail] = field(default_factory=lambda: [training(), ended(), evaluation(), checked()])
    lines: list[a.SiteLine] = field(default_factory=sites)
    submitted: list[JobSpec] = field(default_factory=list)
    aborted: list[tuple[str, str | None]] = field(default_factory=list)
    trouble: Exception | None = None

    async def jobs(self) -> list[a.JobLine]:
        names = a.JobLine.__dataclass_fields__
        return [a.JobLine(**{name: getattr(one, name) for name in names}) for one in self.details]

    async def job(self, job: str) -> a.JobDetail:
        found = next((one for one in self.details if one.job == job), None)
        if found is None:
            raise AskedInVainError(f"no job {job!r}")
        return found

    async def sites(self) -> list[a.SiteLine]:
        return self.lines

    async def history(self, job: str) -> list[a.VersionLine]:
        return history() if job == "heart-0000aaaa" else history(41, top=0.86)

    async def what_left(self) -> a.AuditHeads:
        sent = [
            a.Sent(site=site, job="heart-0000aaaa", updates=n, update_bytes=n * 41_000, at=NOW - n)
            for site, n in (("mercy", 3), ("ucsf", 14), ("va-long-beach", 12))
        ]
        head = a.AuditHead(site="ucsf", job="heart-0000aaaa", head=HEAD, at=NOW)
        return a.AuditHeads(heads=(head,), sent=tuple(sent))

    async def submit(self, spec: JobSpec, *, note: Callable[[str], object]) -> str:
        if self.trouble is not None:
            raise self.trouble
        self.submitted.append(spec)
        return f"{spec.name}-0000eeee"

    async def abort(self, job: str, reason: str | None) -> None:
        self.aborted.append((job, reason))
