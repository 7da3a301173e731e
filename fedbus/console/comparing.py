"""The job that compares two models: which versions, at which sites, with which task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedbus.console.client import Client
from fedbus.core.protocol.answers import JobDetail
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.core.spec.text import shown
from fedbus.errors import SettingsError


async def comparing_spec(
    client: Client, jobs: Sequence[str], versions: Sequence[str]
) -> tuple[EvaluateSpec, list[str]]:
    """Return the spec of a job that compares, and what its submitter should know.

    jobs: one or two trainings. versions: of A and of B; one stands for both, none for the best of each. Raises
    SettingsError when the two cannot be compared.
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
    sites = sorted({*first.sites, *second.sites})
    away = sorted(set(sites) - {line.site for line in await client.sites() if line.state != "offline"})
    if away and len(away) == len(sites):
        raise SettingsError(f"none of the sites of these jobs is there: {', '.join(away)}")
    notes += [f"{', '.join(away)}: not there, and not asked"] if away else []
    spec = EvaluateSpec.parse(
        {
            "kind": "evaluate",
            "name": "compare",
            "task": first.spec.get("task", first.task),
            "task_config": dict(first.spec.get("task_config", {})),
            "seed": first.spec.get("seed", 0),
            "compare": True,
            "models": [{"job": d.job, "version": v} for d, v in zip((first, second), chosen, strict=True)],
            "sites": [site for site in sites if site not in away] or None,
        }
    )
    return spec, notes


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
