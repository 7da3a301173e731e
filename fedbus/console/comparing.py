"""Jobs that compare models: two with each other, or all of a training; which versions, at which sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fedbus.console.fetch import AskedInVainError
from fedbus.core.protocol.answers import JobDetail, SiteLine
from fedbus.core.spec.cross_site import MOST_LOCAL, cross_site_spec
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.core.spec.text import shown
from fedbus.errors import SettingsError


class Answers(Protocol):
    """What is asked here: a client on the bus, or what remembers its answers."""

    async def job(self, job: str) -> JobDetail: ...
    async def sites(self) -> list[SiteLine]: ...


async def comparing_spec(
    client: Answers, jobs: Sequence[str], versions: Sequence[str], metric: str | None
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
    there, of_sites = await _who_is_there(client, {*first.sites, *second.sites})
    spec = {
        "kind": "evaluate",
        "name": "compare",
        "task": first.spec.get("task", first.task),
        "task_config": dict(first.spec.get("task_config", {})),
        "seed": first.spec.get("seed", 0),
        "sites": there or None,
        "models": models,
        "compare": True,
        "metric": metric or _stopped_by(first),
    }
    return EvaluateSpec.parse(spec), [*notes, *of_sites]


async def scored_across(client: Answers, job: str) -> tuple[EvaluateSpec, list[str]]:
    """Return the spec of a job in which every site scores the best, the last and the local models of a training."""
    detail = await client.job(job)
    result: Mapping[str, Any] = detail.result or {}
    local = list(result.get("local_models", ()))
    best = (result.get("best") or {}).get("version")
    there, notes = await _who_is_there(client, set(detail.sites))
    if not local:
        notes = [f"no site has left a local model in {job}: see `evaluate_local` and `share_local_model`", *notes]
    if len(local) > MOST_LOCAL:
        notes = [f"of {len(local)} local models the first {MOST_LOCAL} are scored", *notes]
    return cross_site_spec(job, detail.spec, best=best, last=detail.version, local=local, sites=there), notes


async def follow_up_of(client: Answers, detail: JobDetail) -> JobDetail | None:
    """The job that the aggregator has made when this one ended; None: there was none, or it is there no more."""
    job = (detail.result or {}).get("follow_up")
    if job is None:
        return None
    try:
        return await client.job(job)
    except AskedInVainError:
        return None


async def _who_is_there(client: Answers, sites: set[str]) -> tuple[list[str], list[str]]:
    """Those of the sites that are there, and a note of the others. Raises SettingsError when none is."""
    away = sorted(sites - {line.site for line in await client.sites() if line.state == "online"})
    if away and len(away) == len(sites):
        raise SettingsError(f"none of the sites of these jobs is there: {', '.join(away)}")
    return sorted(sites - set(away)), [f"{', '.join(away)}: not there, and not asked"] if away else []


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
