"""The kinds of jobs, and how a spec of any kind is read. A spec that says no kind is one of a training.

A new kind is a module with its spec, a line here, and its work in `fedbus.aggregator.job.works`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedbus.core.spec.check import CheckSpec
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.text import load_yaml, nearest_words, shown
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError, Problem

TRAINING = "training"
KINDS: Mapping[str, type[JobSpec]] = MappingProxyType(
    {TRAINING: TrainingSpec, "evaluate": EvaluateSpec, "data-check": CheckSpec}
)


def parse(data: object) -> JobSpec:
    """Validate a spec of any kind, a mapping; JobSpecError lists every problem with its path."""
    kind = data.get("kind", TRAINING) if isinstance(data, Mapping) else TRAINING
    spec = KINDS.get(kind) if isinstance(kind, str) else None
    if spec is None:
        message = f"expected one of {', '.join(KINDS)}, got {shown(kind)}{nearest_words(str(kind), KINDS)}"
        raise JobSpecError([Problem(path="kind", message=message)])
    return spec.parse(data)


def parse_yaml(text: str) -> JobSpec:
    """Parse a YAML (or JSON) text; JobSpecError also for its syntax, with the line."""
    return parse(load_yaml(text))
