"""What each site has added to a model, in the scores of all sites: the model without it, measured by everybody.

    change   mean of a metric with all sites - the same without one; above 0 of a metric where more is better: it helped

The models without a site are made elsewhere, from the aggregator's ledger (see `fedbus.replay.without_each`); here a
job that evaluates scores them beside the whole one, and what comes of it is put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbus.console.client import Client
from fedbus.console.fetch import AskedInVainError
from fedbus.console.outcome import models_of, when_ended
from fedbus.core.protocol.answers import JobDetail, ScoredModel
from fedbus.core.protocol.messages import JobState
from fedbus.core.spec.evaluate import MOST_MODELS, EvaluateSpec

MOST_SITES = MOST_MODELS - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """Of one site: by metric the mean over all sites without it, the change, and the change at each site."""

    site: str
    means: Mapping[str, float]
    change: Mapping[str, float]
    at_sites: Mapping[str, Mapping[str, float]]


def spec_of(detail: JobDetail, files: Sequence[str]) -> EvaluateSpec:
    """A job in which the sites of another one score its last version and these files of the params folder."""
    spec = detail.spec
    keys: dict[str, Any] = {key: spec[key] for key in ("task", "task_config", "sites", "chunk_bytes") if key in spec}
    models = [{"job": detail.job, "version": "last"}, *({"file": name} for name in files)]
    name = f"contribution-{detail.name or 'job'}"[:40].rstrip("-")
    return EvaluateSpec.parse({"kind": "evaluate", "name": name, "models": models, **keys})


async def scored(client: Client, spec: EvaluateSpec) -> tuple[str, tuple[ScoredModel, ...]]:
    """Let the sites score, and wait until they have; its id and the models in the order of the spec.

    Raises AskedInVainError when the job does not finish.
    """
    job = await client.submit(spec)
    detail = await when_ended(client, job)
    if detail.state != JobState.FINISHED:
        raise AskedInVainError(f"{job}, which lets the sites score, is {detail.state}: {detail.says}")
    return job, models_of(detail)


def contributions(sites: Sequence[str], models: Sequence[ScoredModel]) -> list[Contribution]:
    """What each site has added; `models`: the whole one, then without each of `sites`."""
    whole, *others = models
    return [
        Contribution(
            site=site,
            means=dict(without.means),
            change={name: whole.means[name] - value for name, value in without.means.items() if name in whole.means},
            at_sites={at: _change(whole, without, at) for at in sorted(whole.scores.keys() & without.scores.keys())},
        )
        for site, without in zip(sites, others, strict=True)
    ]


def _change(whole: ScoredModel, without: ScoredModel, at: str) -> dict[str, float]:
    before, after = without.scores[at].metrics, whole.scores[at].metrics
    return {name: after[name] - before[name] for name in sorted(after.keys() & before.keys())}
