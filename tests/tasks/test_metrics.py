from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fedbus.tasks.metrics import auc, auc_again

scored = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40)


@given(pairs=scored.filter(lambda pairs: len({label for _, label in pairs}) == 2))
def test_equals_scikit_learn_with_many_ties(pairs: list[tuple[int, bool]]) -> None:
    scores = torch.tensor([float(score) for score, _ in pairs])
    labels = torch.tensor([float(label) for _, label in pairs])

    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels.numpy(), scores.numpy()), abs=1e-12)


def test_equals_scikit_learn_without_ties() -> None:
    scores = torch.randn(500, generator=torch.Generator().manual_seed(1))
    labels = (torch.rand(500, generator=torch.Generator().manual_seed(2)) < 0.1).float()

    assert auc(scores, labels) == pytest.approx(roc_auc_score(labels.numpy(), scores.numpy()), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [([0.1, 0.9], [1.0, 1.0]), ([0.1, 0.9], [0.0, 0.0]), ([], []), ([float("nan"), 1.0], [0.0, 1.0])],
    ids=["only positives", "only negatives", "nobody", "not finite"],
)
def test_is_none_where_there_is_none(scores: list[float], labels: list[float]) -> None:
    assert auc(torch.tensor(scores), torch.tensor(labels)) is None


def test_auc_of_drawn_rows_is_that_of_a_test_set_of_these_rows() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randint(0, 12, (80,), generator=generator).float()  # with ties
    labels = torch.randint(0, 2, (80,), generator=generator).float()
    again = auc_again(scores, labels)
    for _ in range(20):
        rows = torch.randint(0, 80, (80,), generator=generator)
        assert again(rows.numpy()) == pytest.approx(auc(scores[rows], labels[rows]), abs=1e-12)
    assert math.isnan(again(torch.nonzero(labels > 0)[:, 0].numpy()))
