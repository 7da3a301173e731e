"""The comparison that shows what becomes of running statistics; how good it is, is a benchmark's business."""

from __future__ import annotations

import pytest
import torch

from fedbus.bench.batch_norm import RULES, Case, run_case
from fedbus.errors import SettingsError

torch.set_num_threads(1)


@pytest.mark.parametrize("label", RULES)
def test_under_every_rule_each_score_is_finite_and_no_variance_negative(label: str) -> None:
    outcome = run_case(Case(task="digits", network="bn_cnn", seed=1, until_s=5, keys=RULES[label]))

    assert outcome.not_finite == 0
    assert outcome.lowest >= 0.0


@pytest.mark.parametrize("keep", ["batch_norm", "buffers"])
def test_what_stays_at_home_is_there_when_the_site_scores(keep: str) -> None:
    config = {"scanner_sites": 3, "scanner_scale": 0.2, "scanner_shift": 3.0}

    outcome = run_case(Case(task="digits", network="bn_cnn", seed=1, until_s=10, keys={"keep": [keep]}, config=config))

    assert outcome.not_finite == 0
    assert outcome.accuracy > 0.15  # a coin with ten sides


def test_a_network_that_is_unknown_is_named() -> None:
    with pytest.raises(SettingsError, match="'lenet' is unknown: expected bn_cnn"):
        run_case(Case(task="digits", network="lenet", seed=1, until_s=1))
