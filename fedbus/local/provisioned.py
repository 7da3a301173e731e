"""A provisioned federation whose participants are all on this machine: keys for everybody, and policies that say what.

For the demo, measurements and tests. Who really takes part makes its own key and writes its own policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedbus.provision.federation import FederationFolder
from fedbus.provision.federation_file import BrokerPart, FederationFile
from fedbus.provision.texts import policy_text
from fedbus.trust.subjects import Role

HOST = "localhost"
Allowed = Mapping[str, Sequence[str]]
"""By task: what a job may set, such as `local.steps`."""


def provision_here(
    folder: Path, *, name: str, sites: Sequence[str], broker: BrokerPart, allowed: Allowed
) -> FederationFolder:
    """Make the federation `name`; at every site these tasks may run."""
    made = FederationFolder(folder)
    file = FederationFile(federation=name, broker=broker, sites=tuple(sites))
    made.provision(file, now=datetime.now(UTC), with_keys=True)
    for site in sites:
        (kit_of(folder, site) / "policy.toml").write_text(open_policy(site, allowed), encoding="utf-8")
    return made


def kit_of(folder: Path, login: str) -> Path:
    """The kit of a participant in a federation's folder; whoever is no staff is a site."""
    group = {Role.AGGREGATOR.value: "", Role.SUBMITTER.value: "submitters"}.get(login, "sites")
    return folder / group / login


def open_policy(site: str, allowed: Allowed) -> str:
    """The policy of a new kit that lets these tasks run, and all leave that a policy can keep back."""
    lines = [f'{task} = {{data = "any", params = {{{_any(params)}}}}}\n' for task, params in allowed.items()]
    return policy_text(site).replace("= false", "= true") + "".join(lines)


def _any(params: Sequence[str]) -> str:
    return ", ".join(f'"{param}" = "any"' for param in params)
