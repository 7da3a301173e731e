"""What a job asks of the trainer, and what the trainer's replies become on the bus: translation, no decisions.

Free text leaves a site only through this module, and only as `Sayable`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import DEFAULT_RATIO
from fedbus.core.protocol.statistics import LEAST, Plan, Statistics
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.training import TrainingSpec
from fedbus.site.job.model_files import Held
from fedbus.site.settings import SiteSettings
from fedbus.store.residuals import Source
from fedbus.training import protocol as p
from fedbus.training.names import texts_in
from fedbus.training.sayable import Sayable


def opening(job: str, spec: JobSpec, settings: SiteSettings, *, devices: Sequence[str]) -> p.Open:
    """The first command: the job's task on this site's data, on the devices of its places.

    What the job keeps here lies outside its folder: it outlives the job, for nobody else has it.
    """
    content = spec.to_dict()
    return p.Open(
        job=job,
        task=content["task"],
        task_config=content["task_config"],
        seed=content["seed"],
        site=settings.site_name,
        data=str(settings.site_data.resolve()),
        chunk_bytes=content["chunk_bytes"],
        device=devices[0],
        ranks=tuple(devices[1:]),
        threads=settings.threads,
        slowdown=settings.slowdown,
        step_delay_s=settings.step_delay_s,
        words=tuple(dict.fromkeys(texts_in(content))),
        fewest_cases=settings.min_test_cases,
        kept=str(kept_file(settings, job)),
        kept_before=_kept_before(spec, settings),
        **_training_part(spec),
    )


def _kept_before(spec: JobSpec, settings: SiteSettings) -> str:
    """Where the tensors are that the job which this one continues has kept here; empty: it continues none."""
    if not isinstance(spec, TrainingSpec) or spec.continues is None:
        return ""
    return str(kept_file(settings, spec.continues.job))


def _training_part(spec: JobSpec) -> dict[str, Any]:
    if not isinstance(spec, TrainingSpec):
        return {"local": {}}
    up = spec.codec.up
    return {
        "local": spec.to_dict()["local"],
        "up": up.kind,
        "ratio": up.ratio or DEFAULT_RATIO,
        "travel": spec.travel,
        "keep": spec.keep,
        "frozen": spec.frozen,
    }


def kept_file(settings: SiteSettings, job: str) -> Path:
    """Where the tensors are that a job keeps here."""
    return settings.state_dir.resolve() / "kept" / f"{job}.safetensors"


def examining(job: str, spec: JobSpec, settings: SiteSettings, plan: Plan) -> p.Examine:
    """Statistics of the site's data, by the job's plan and what the site withholds beyond it."""
    content = spec.to_dict()
    salt = plan.salt if settings.share_prints else ""
    return p.Examine(
        job=job,
        task=content["task"],
        task_config=content["task_config"],
        seed=content["seed"],
        site=settings.site_name,
        data=str(settings.site_data.resolve()),
        plan=replace(plan, minimum=max(plan.minimum, settings.min_count), salt=salt),
        threads=settings.threads,
        words=tuple(dict.fromkeys(texts_in(content))),
    )


def statistics_answer(
    job: str, site: str, asked: str, statistics: Statistics | None, *, why: Sayable | None = None
) -> m.StatisticsAnswer:
    """What a site says of its data, or why it cannot."""
    return m.StatisticsAnswer(site=site, job=job, asked=asked, statistics=statistics, failed=why or "")


def declining(job: str, site: str, why: Sayable) -> m.OfferAnswer:
    """The site takes no part, or no longer."""
    return m.OfferAnswer(site=site, job=job, accepted=False, reason=why)


def load(held: Held, *, since: int | None) -> p.Load:
    """Only the deltas that a trainer at version `since` lacks, or the snapshot and all deltas after it."""
    if since is not None and since >= held.snapshot_version:
        deltas = tuple(str(d.path) for d in held.deltas if d.version > since)
        return p.Load(version=held.version, digest=held.digest, deltas=deltas)
    return p.Load(
        version=held.version,
        digest=held.digest,
        deltas=tuple(str(d.path) for d in held.deltas),
        snapshot=str(held.snapshot),
        layout=held.layout,
    )


def train(path: Path, *, seed: int, steps: int | None, residual: Source | None) -> p.Train:
    """One training of so many steps (None: the job's own), with the files of error feedback when the code needs it."""
    if residual is None:
        return p.Train(path=str(path), seed=seed, steps=steps)
    return p.Train(
        path=str(path),
        seed=seed,
        steps=steps,
        residual_add=tuple(map(str, residual.add)),
        residual_subtract=tuple(map(str, residual.subtract)),
        residual_before=str(residual.before),
        residual_after=str(residual.after),
    )


def accepting(job: str, site: str, layout_digest: str) -> m.OfferAnswer:
    """The site takes part; the digest, of the params that its task makes, is empty until the task is open."""
    return m.OfferAnswer(site=site, job=job, accepted=True, layout=layout_digest)


def initial_manifest(job: str, update_id: m.UpdateId, made: p.Made) -> m.UpdateManifest:
    """Commits the job's first params."""
    return m.UpdateManifest(
        job=job,
        update_id=str(update_id),
        kind=m.UpdateKind.INITIAL,
        base_version=0,
        effort=Effort(),
        layout_digest=made.digest,
        frames=len(made.frame_sizes),
        body_bytes=sum(made.frame_sizes),
        layout=made.layout,
    )


def delta_manifest(job: str, update_id: m.UpdateId, trained: p.Trained, *, layout_digest: str) -> m.UpdateManifest:
    """Commits an update."""
    return m.UpdateManifest(
        job=job,
        update_id=str(update_id),
        kind=m.UpdateKind.DELTA,
        base_version=trained.base_version,
        effort=replace(trained.effort, metrics=_finite(trained.effort.metrics)),
        layout_digest=layout_digest,
        frames=len(trained.frame_sizes),
        body_bytes=sum(trained.frame_sizes),
    )


def local_manifest(job: str, update_id: m.UpdateId, trained: p.Trained, *, layout_digest: str) -> m.UpdateManifest:
    """Commits the site's local model, whole, as that training has left it."""
    return m.UpdateManifest(
        job=job,
        update_id=str(update_id),
        kind=m.UpdateKind.LOCAL,
        base_version=trained.base_version,
        effort=Effort(num_examples=trained.effort.num_examples),
        layout_digest=layout_digest,
        frames=len(trained.local_sizes),
        body_bytes=sum(trained.local_sizes),
    )


def score_answer(job: str, site: str, scored: p.Scored, *, asked: bool, local: str = "") -> m.ScoreAnswer:
    """A site's score of a version, which was asked for or not; local: the update that brings its local model."""
    metrics = _finite(scored.metrics)
    lost = tuple(name for name in scored.metrics if name not in metrics)
    return m.ScoreAnswer(
        site=site,
        job=job,
        version=scored.version,
        metrics=metrics,
        num_examples=scored.num_examples,
        not_finite=(*scored.not_finite, *lost),
        spreads=scored.spreads,
        differences=scored.differences,
        losses=scored.losses,
        local=local,
        asked=asked,
    )


def score(version: int, asked: m.ScoreRequest | None, *, min_count: int = LEAST) -> p.Score:
    """Score a version; asked: what the aggregator wants beside its metrics, if it has asked.

    min_count: losses of classes with fewer examples do not leave this site.
    """
    if asked is None:
        return p.Score(version=version)
    return p.Score(
        version=version,
        intervals=asked.intervals,
        model=asked.model,
        against=asked.against,
        losses=max(min_count, asked.losses) if asked.losses else 0,
    )


def no_score(job: str, site: str, version: int, why: Sayable) -> m.ScoreAnswer:
    """A site cannot score a version; nobody waits for it."""
    return m.ScoreAnswer(site=site, job=job, version=version, metrics={}, num_examples=0, failed=why)


def resync(job: str, site: str, why: Sayable) -> m.ResyncRequest:
    """A site asks for a snapshot."""
    return m.ResyncRequest(site=site, job=job, reason=why)


def trouble(job: str, site: str, why: Sayable, *, restarts: int, fatal: bool) -> m.TrainerTrouble:
    """A trainer died or failed."""
    return m.TrainerTrouble(site=site, job=job, error=why, restarts=restarts, fatal=fatal)


def activity(job: str, doing: Activity, *, detail: Sayable | None = None) -> m.JobActivity:
    """What a site does for a job."""
    return m.JobActivity(job=job, activity=doing, version=-1, detail=detail or "")


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """NaN and infinity are no JSON; a metric that diverged is left out."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
