"""`continues` in a job spec: what it may say, and which sites are told."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.spec.outline import outline
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError


def spec_of(**keys: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse({"name": "j", "task": "t", "local": local, "stop": {"versions": 1}} | keys)


def test_a_job_alone_means_its_best_version() -> None:
    spec = spec_of(continues="old-0c1d2e3f")
    assert spec.to_dict()["continues"] == {"job": "old-0c1d2e3f", "version": "best"}
    assert TrainingSpec.parse(spec.to_dict()) == spec
    assert dict(outline(spec))["first params"] == "the best version of old-0c1d2e3f"


def test_only_a_job_that_keeps_tensors_at_the_sites_tells_them_which_job_that_was() -> None:
    assert "continues" not in spec_of(continues="old").to_offer()
    assert spec_of(continues="old", keep=["head.*"]).to_offer()["continues"]["job"] == "old"


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"continues": "../old"}, "continues.job"),
        ({"continues": {"job": "old", "version": "first"}}, "continues.version"),
        ({"continues": {"version": "best"}}, "continues.job"),
        ({"continues": "old", "initial_params": "a.safetensors"}, "initial_params"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(keys: dict[str, Any], path: str) -> None:
    with pytest.raises(JobSpecError) as found:
        spec_of(**keys)
    assert [problem.path.startswith(path) for problem in found.value.problems] == [True] * len(found.value.problems)
