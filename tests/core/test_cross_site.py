"""The job in which every site scores what a training has left: which models, and under which id."""

from __future__ import annotations

from typing import Any

from fedbus.core.spec.cross_site import MOST_LOCAL, cross_site_spec, follow_up_id
from fedbus.core.spec.evaluate import EvaluateSpec

TRAINING = {"name": "heart", "task": "t", "task_config": {"fold": 2}, "seed": 7}


def spec_of(**given: Any) -> EvaluateSpec:
    known: dict[str, Any] = {"best": 3, "last": 9, "local": ["mercy"], "sites": {"ucsf", "mercy"}}
    return cross_site_spec("heart-1", TRAINING, **known | given)


def test_the_last_version_is_scored_once_when_it_is_the_best_or_none_is() -> None:
    for best in (9, None):
        assert [model.says for model in spec_of(best=best).models] == [
            "heart-1, version last",
            "heart-1, local model of mercy",
        ]
    assert spec_of().models[0].says == "heart-1, version best"
    assert spec_of().task_config == {"fold": 2}


def test_of_more_models_than_one_job_scores_the_first_are_taken() -> None:
    spec = spec_of(local=[f"site-{n:03d}" for n in range(100)])
    assert len(spec.models) == MOST_LOCAL + 2
    assert spec.models[-1].site == "site-029"


def test_the_id_is_always_the_same_and_another_one_for_a_job_that_has_the_id_of_a_forgotten_one() -> None:
    assert follow_up_id("heart-1", 1.5) == follow_up_id("heart-1", 1.5)
    assert len({follow_up_id("heart-1", 1.5), follow_up_id("heart-1", 2.5), follow_up_id("heart-2", 1.5)}) == 3
    assert follow_up_id("heart-1", 1.5).startswith("cross-site-")
