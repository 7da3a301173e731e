"""A job that waits for new labels says how many are there, and where."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fedbus.core.job.labels import MOST_OF_ONE, labels_missing
from fedbus.core.spec.training import TrainingSpec

SPEC = {
    "name": "kidneys",
    "task": "segmentation",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 1},
}


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"b": 4, "a": 8}, "waiting for new labels: 12 of 20 are there (a 8, b 4)"),
        ({"a": 8, "b": -1}, "waiting for new labels: 8 of 20 are there (a 8; b without a data source)"),
        ({"b": -1}, "waiting for new labels: 0 of 20 are there (b without a data source)"),
        ({}, "waiting for new labels: 0 of 20 are there (no site has told yet)"),
        ({"a": 12, "b": 8}, ""),
        ({"a": 10**18}, ""),
    ],
)
def test_what_is_missing_is_said_by_site(told: Mapping[str, int], says: str) -> None:
    assert labels_missing(20, told) == says


def test_no_site_counts_for_more_than_a_bound() -> None:
    assert labels_missing(MOST_OF_ONE + 1, {"a": 10**18}) != ""


def test_sites_of_an_earlier_release_can_read_the_offer() -> None:
    assert "min_new_labels" not in TrainingSpec.parse(SPEC | {"min_new_labels": 5}).to_offer()
    assert TrainingSpec.parse(SPEC).min_new_labels == 0
