"""Under what something of a job leaves a site: who asked, which task in which version, by which policy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points

from fedbus.core.job.policy import SitePolicy
from fedbus.training.registry import GROUP


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Of one job. filters: names of the steps between delta and code, in their order; policy: what holds now."""

    submitter: str
    task: str
    task_version: str
    policy: Callable[[], Mapping[str, object]]
    filters: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, object]:
        """What an audit line says of them."""
        return {
            "submitter": self.submitter,
            "task": self.task,
            "task_version": self.task_version,
            "filters": self.filters,
            **self.policy(),
        }


def task_versions() -> dict[str, str]:
    """The distribution and its version that each installed task is from; nothing is imported."""
    found = {point.name: point.dist for point in entry_points(group=GROUP)}
    return {name: "" if dist is None else f"{dist.name} {dist.version}" for name, dist in sorted(found.items())}


def policy_facts(floor: SitePolicy, digest: str) -> dict[str, object]:
    """`policy`: that of the hospital's file, empty without one; `settings`: of what the settings allow beside it."""
    said = repr(replace(floor, installed_tasks=frozenset(), allowed_tasks=None)), sorted(floor.tasks)
    return {"policy": digest, "settings": hashlib.sha256(repr(said).encode()).hexdigest()[:16]}
