"""Under what something of a job leaves a site: who asked, which task in which version, by which policy."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points

from fedbus.core.job.policy import SitePolicy
from fedbus.core.protocol import wire
from fedbus.training.registry import GROUP


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Of one job. filters: names of the steps between delta and code, in their order."""

    submitter: str
    task: str
    task_version: str
    policy: str
    filters: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, object]:
        """What an audit line says of them."""
        return asdict(self)


def task_versions() -> dict[str, str]:
    """The distribution and its version that each installed task is from; nothing is imported."""
    found = {point.name: point.dist for point in entry_points(group=GROUP)}
    return {name: "" if dist is None else f"{dist.name} {dist.version}" for name, dist in sorted(found.items())}


def policy_digest(policy: SitePolicy) -> str:
    """SHA-256 over all that a policy says, in hex digits."""
    said = {key: sorted(value) if isinstance(value, frozenset) else value for key, value in asdict(policy).items()}
    return hashlib.sha256(wire.to_json(said)).hexdigest()
