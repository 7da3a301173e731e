"""The job that compares two models: which versions, at which sites, with which task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedbus.console.client import Client
from fedbus.core.protocol.answers import JobDetail
from fedbus.core.spec.evaluate import MOST_MODELS, EvaluateSpec
from fedbus.core.spec.text import shown
from fedbus.errors import SettingsError


async def comparing_spec(
    client: Client, jobs: Sequence[str], versions: Sequence[str], metric: str | None
) -> tuple[EvaluateSpec, list[str]]:
    """Return the spec of a job that compares, and what its submitter should know.

    jobs: one or two trainings. versions: of A and of B; one stands for both, none for the best of each. metric: the
    question; None: what A was stopped by, where that is no loss. Raises SettingsError when they cannot be compared.
    """
    details = [await client.job(job) for job in jobs]
    first, second = details[0], details[-1]
    wanted = [*versions, *versions][:2] if versions else ["best", "best"]
    chosen = [_version(detail, version) for detail, version in zip((first, second), wanted, strict=True)]
    if first.task != second.task:
        raise SettingsError(f"{first.job} is of task {first.task}, {second.job} of {second.task}: their models differ")
    if first.job == second.job and chosen[0] == chosen[1]:
        raise SettingsError(f"both are version {chosen[0]} of {first.job}: there is nothing to compare")
    notes = _notes(first, second, wanted, chosen)
    models = [{"job": d.job, "version": v} for d, v in zip((first, second), chosen, strict=True)]
    keys = {"name": "compare", "compare": True, "metric": metric or _stopped_by(first), "models": models}
    return await _spec(client, first, keys, sites={*first.sites, *second.sites}, notes=notes)


async def cross_site_spec(client: Client, job: str) -> tuple[EvaluateSpec, list[str]]:
    """Return the spec of a job in which every site scores the best, the last and the local models of a training."""
    detail = await client.job(job)
    result: Mapping[str, Any] = detail.result or {}
    local = list(result.get("local_models", ()))
    best = (result.get("best") or {}).get("version")
    versions: list[str] = ["best", "last"] if best is not None and best != detail.version else ["last"]
    models = [{"job": job, "version": version} for version in versions] + [{"job": job, "site": s} for s in local]
    notes = [] if local else [f"no site has left a local model in {job}: see `evaluate_local` and `share_local_model`"]
    keys = {"name": "cross-site", "models": models[:MOST_MODELS]}
    return await _spec(client, detail, keys, sites=set(detail.sites), notes=notes)


async def _spec(
    client: Client, trained: JobDetail, keys: Mapping[str, Any], *, sites: set[str], notes: list[str]
) -> tuple[EvaluateSpec, list[str]]:
    """A job that scores with the task of a training, at those of the sites that are there."""
    away = sorted(sites - {line.site for line in await client.sites() if line.state == "online"})
    if away and len(away) == len(sites):
        raise SettingsError(f"none of the sites of these jobs is there: {', '.join(away)}")
    spec = {
        "kind": "evaluate",
        "task": trained.spec.get("task", trained.task),
        "task_config": dict(trained.spec.get("task_config", {})),
        "seed": trained.spec.get("seed", 0),
        "sites": sorted(sites - set(away)) or None,
        **keys,
    }
    return EvaluateSpec.parse(spec), [*notes, *([f"{', '.join(away)}: not there, and not asked"] if away else [])]


def _version(detail: JobDetail, wanted: str) -> str | int:
    """What is there of what is wanted; the last version stands for a best one that no score has named."""
    if wanted.isdecimal():
        return int(wanted)
    best: Any = (detail.result or {}).get("best")
    return "last" if wanted == "best" and not best else wanted


def _notes(first: JobDetail, second: JobDetail, wanted: Sequence[str], chosen: Sequence[str | int]) -> list[str]:
    notes = [
        f"{detail.job} has no best version: its last one is compared"
        for detail, was, now in zip((first, second), wanted, chosen, strict=True)
        if was != str(now)
    ]
    ours, theirs = (detail.spec.get("task_config", {}) for detail in (first, second))
    keys = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
    for key in keys:
        notes.append(
            f"task_config.{key} is {shown(ours.get(key))} in {first.job} and {shown(theirs.get(key))} in {second.job}:"
            f" both are scored with that of {first.job}"
        )
    return notes


def _stopped_by(detail: JobDetail) -> str | None:
    stop: Mapping[str, Any] = detail.spec.get("stop") or {}
    rules = (stop.get("patience") or {}, stop.get("target") or {})
    found = next((str(rule["metric"]) for rule in rules if rule.get("metric")), None)
    return None if found == "loss" else found
