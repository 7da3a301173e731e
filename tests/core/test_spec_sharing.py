"""`travel`, `keep` and `frozen` in a job spec: what they may say together, and who is offered them."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError


def spec_of(**keys: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse({"name": "j", "task": "t", "local": local, "stop": {"versions": 1}} | keys)


def problems(**keys: Any) -> dict[str, str]:
    with pytest.raises(JobSpecError) as found:
        spec_of(**keys)
    return {problem.path: problem.message for problem in found.value.problems}


@pytest.mark.parametrize(
    ("keys", "path", "other"),
    [
        ({"travel": ["a.*"], "keep": ["b", "a.*"]}, "keep", "travel"),
        ({"keep": ["a.*"], "frozen": ["a.*"]}, "frozen", "keep"),
        ({"travel": ["a.*"], "frozen": ["a.*"]}, "frozen", "travel"),
    ],
)
def test_an_entry_stands_in_one_list_only(keys: dict[str, Any], path: str, other: str) -> None:
    (problem,) = problems(**keys).items()
    assert problem == (path, f"names 'a.*', which {other} names as well: leave it out of one of them")


@pytest.mark.parametrize("key", ["keep", "travel"])
def test_local_models_that_others_are_to_score_are_whole(key: str) -> None:
    (problem,) = problems(**{key: ["head.*"]}, evaluate_local=True).items()
    assert problem[0] == "evaluate_local"
    assert f"{key} leaves a part of them at each site" in problem[1]
    assert spec_of(frozen=["head.*"], evaluate_local=True).evaluate_local


def test_the_same_entry_twice_in_one_list_does_no_harm() -> None:
    assert spec_of(keep=["a.*", "a.*"]).keep == ("a.*", "a.*")


def test_a_site_of_the_release_before_is_offered_these_keys_only_when_they_say_something() -> None:
    assert not {"travel", "keep", "frozen"} & spec_of().to_offer().keys()

    spec = spec_of(travel=["head.*"], frozen=["body.*"])

    assert {key: spec.to_offer()[key] for key in ("travel", "frozen")} == {"travel": ["head.*"], "frozen": ["body.*"]}
    assert TrainingSpec.parse(spec.to_offer()) == spec


@pytest.mark.parametrize(("word", "key"), [("freeze_layers", "frozen"), ("trainable_layers", "travel")])
def test_words_of_other_frameworks_lead_to_the_keys(word: str, key: str) -> None:
    assert problems(**{word: ["a"]})[word] == f"unknown key; here it is {key}"
