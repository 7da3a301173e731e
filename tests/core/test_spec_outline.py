"""What a job will be, as it is said to the person who is about to submit it."""

from __future__ import annotations

from typing import Any

import pytest

from fedbus.core.spec.outline import outline
from fedbus.core.spec.training import TrainingSpec

SPEC = {
    "name": "heart",
    "task": "heart_disease",
    "local": {"steps": 20, "batch_size": 16, "learning_rate": 0.1},
    "stop": {"versions": 40},
}


def said(**keys: Any) -> dict[str, str]:
    return dict(outline(TrainingSpec.parse(SPEC | keys)))


def test_what_is_left_out_is_said_to_be_the_default():
    lines = said()

    assert lines["takes part"] == "every site that has the task and accepts (default)"
    assert lines["starts"] == "when 1 site accepted, pauses with fewer (default)"
    assert lines["strategy"].startswith("auto: buffered or calibrated")
    assert lines["strategy"].endswith("(default)")
    assert lines["step"].endswith("the aggregator measures how far each version may move (default)")
    assert lines["stops"] == "after 40 versions"


@pytest.mark.parametrize(
    ("keys", "line", "text"),
    [
        ({"strategy": "auto"}, "strategy", "auto: buffered or calibrated, by how much the sites differ in speed; "),
        ({"strategy": {"kind": "buffered", "buffer": 3}}, "strategy", "a version when 3 updates came"),
        ({"strategy": "calibrated"}, "strategy", "a version when all sites but one have sent"),
        ({"strategy": "fedasync"}, "strategy", "a version of every update, mixed in with 0.6"),
        ({"strategy": {"kind": "sync", "k": 2, "deadline_s": 9}}, "strategy", "when 2 sites have sent, or after 9 s"),
        ({"strategy": "sync"}, "step", "plain, lr 1 (default)"),
        ({"server_optimizer": "adam"}, "step", "adam, server_optimizer.lr 0.01"),
        ({"strategy": "sync"}, "late updates", "count less, polynomial in how many versions they are behind (default)"),
        ({"sites": ["mercy", "va"], "min_sites": 2}, "takes part", "only mercy, va"),
        ({"min_contributors": 3}, "starts", "when 3 sites accepted, pauses with fewer; every version comes from"),
        ({"stop": {"updates": 9, "wall_time_s": 60.0}}, "stops", "after 9 updates or after 60 s, whichever is first"),
        (
            {"stop": {"target": {"metric": "auc", "at_least": 0.8}, "patience": 5}},
            "stops",
            "when the sites' mean auc is at least 0.8 or when 5 versions in a row brought no higher auc",
        ),
        ({"initial_params": "a.safetensors"}, "first params", "a.safetensors in the aggregator's params folder"),
        ({"keep": ["head.*"]}, "kept at home", "head.*"),
        ({"travel": ["lora_*", "head.*"]}, "travels", "only lora_*, head.*"),
        ({"frozen": ["batch_norm"]}, "frozen", "batch_norm"),
        ({"min_sites": 7, "robust": "multi_krum"}, "robust", "multi_krum: up to 2 sites of a version may lie"),
    ],
)
def test_each_part_of_a_job_is_said_in_plain_words(keys, line, text):
    assert text in said(**keys)[line]


@pytest.mark.parametrize(("budget", "text"), [({"epochs": 2}, "2 epochs"), ({"seconds": 3.5}, "3.5 s")])
def test_the_budget_of_a_site_is_said_in_its_own_unit(budget, text):
    assert said(local={**budget, "batch_size": 16, "learning_rate": 0.1})["each site"].startswith(text)
