"""A job of any kind: what all have, what each adds, and that a spec without a kind is a training."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.job.policy import Accept, SitePolicy
from fedbus.core.spec import kinds
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.core.spec.outline import outline
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError

HEAD = {"name": "heart", "task": "t"}
TRAINING = HEAD | {"local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1}, "stop": {"versions": 1}}
EVALUATE = HEAD | {"kind": "evaluate", "models": [{"job": "heart-0a", "version": "best"}, {"file": "a.safetensors"}]}


def test_a_spec_without_a_kind_is_a_training_and_one_with_it_the_same() -> None:
    assert kinds.parse(TRAINING) == kinds.parse(TRAINING | {"kind": "training"}) == TrainingSpec.parse(TRAINING)


def test_a_training_is_offered_as_sites_of_the_release_before_read_it() -> None:
    assert "kind" not in kinds.parse(TRAINING).to_offer()
    assert kinds.parse(EVALUATE).to_offer()["kind"] == "evaluate"


def test_a_spec_of_each_kind_comes_back_from_its_data() -> None:
    for data in (TRAINING, EVALUATE):
        spec = kinds.parse(data)
        assert kinds.parse(spec.to_dict()) == spec


def test_an_evaluation_that_asks_for_nothing_new_is_offered_without_the_new_keys() -> None:
    offer = kinds.parse(EVALUATE).to_offer()
    assert {"compare", "metric"}.isdisjoint(offer)
    assert all("site" not in model for model in offer["models"])
    compared = kinds.parse(EVALUATE | {"compare": True, "models": [{"job": "a"}, {"job": "a", "site": "ucsf"}]})
    assert compared.to_offer()["compare"] is True
    assert compared.to_offer()["models"][1]["site"] == "ucsf"


def test_an_evaluate_spec_says_its_models_in_order() -> None:
    spec = EvaluateSpec.parse(EVALUATE)
    assert [model.says for model in spec.models] == ["heart-0a, version best", "a.safetensors"]
    assert ("model 1", "a.safetensors") in outline(spec)
    assert spec.least_sites == 1


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (
            {"kind": "evalute"},
            "kind",
            "expected one of training, evaluate, data-check, got 'evalute' (text); did you mean 'evaluate'?",
        ),
        ({"kind": 3}, "kind", "expected one of training, evaluate, data-check, got 3"),
        ({"models": []}, "models", "name 1 to 32 models; got 0"),
        ({"models": [{}]}, "models.0", "give exactly one of job, file; got none of them"),
        ({"models": [{"job": "a", "file": "b"}]}, "models.0", "give exactly one of job, file; got job and file"),
        ({"models": [{"file": "b", "version": 3}]}, "models.0", "version belongs to job; a file has no versions"),
        ({"models": [{"file": "b", "site": "ucsf"}]}, "models.0", "site belongs to job, and stands instead of version"),
        ({"models": [{"job": "a", "site": "u", "version": 3}]}, "models.0", "site belongs to job, and stands instead"),
        ({"models": [{"job": "a", "site": "U S"}]}, "models.0.site", "must be 1 to 40 of a-z"),
        ({"models": [{"job": "a"}], "compare": True}, "compare", "needs two models"),
        ({"metric": "auc"}, "metric", "belongs to compare: true"),
        ({"models": [{"file": "../b"}]}, "models.0.file", "without a path; got '../b'"),
        ({"models": [{"job": "A B"}]}, "models.0.job", "must be 1 to 40 of a-z"),
        ({"models": [{"job": "a", "version": "newest"}]}, "models.0.version", "expected one of last, best"),
        ({"local": {"steps": 1}}, "local", "unknown key"),
        ({"sites": ["a"], "min_sites": 2}, "min_sites", "is 2, but sites lists only 1"),
    ],
)
def test_each_mistake_is_said_with_its_path(change: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(JobSpecError) as found:
        kinds.parse(EVALUATE | change)
    assert [message in problem.message for problem in found.value.problems if problem.path == path] == [True]


def test_a_site_that_insists_on_large_batches_takes_a_job_that_trains_nothing() -> None:
    policy = SitePolicy(site="mercy", installed_tasks=frozenset({"t"}), min_batch_size=64, min_contributors=3)
    assert isinstance(policy.decide(kinds.parse(EVALUATE)), Accept)
    assert not isinstance(policy.decide(kinds.parse(TRAINING)), Accept)
