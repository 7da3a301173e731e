from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbus.errors import DataError, TaskError
from fedbus.tasks.shares import DEFAULTS, Sharing, class_scores

LABELS = np.repeat(np.arange(10), 200)
RARE = {"rare_classes": [7, 8, 9], "rare_sites": 3}


def sharing(**keys: object) -> Sharing:
    return Sharing.of({**DEFAULTS, **keys})


def splits(how: Sharing, sites: int = 12) -> list[tuple[np.ndarray, np.ndarray]]:
    return [how.split(LABELS, index=index, sites=sites) for index in range(sites)]


def test_the_last_sites_alone_have_the_rare_classes_and_no_others() -> None:
    classes = [set(LABELS[train]) for train, _ in splits(sharing(**RARE, shared_test=True))]

    assert set.union(*classes[:9]) == set(range(7))
    assert set.union(*classes[9:]) == {7, 8, 9}


def test_a_shared_test_set_is_the_same_everywhere_and_nobody_trains_on_it() -> None:
    found = splits(sharing(**RARE, shared_test=True))

    trained = np.concatenate([train for train, _ in found])
    tested = found[0][1]
    assert all(np.array_equal(test, tested) for _, test in found)
    assert sorted([*trained, *tested]) == list(range(len(LABELS)))
    assert len(tested) == round(0.221 * len(LABELS))


def test_without_one_each_site_is_tested_on_a_fifth_of_its_own() -> None:
    found = splits(sharing(alpha=1.0), sites=4)

    assert sorted(np.concatenate([rows for pair in found for rows in pair])) == list(range(len(LABELS)))
    assert all(len(test) == round(0.2 * (len(train) + len(test))) for train, test in found)


def test_another_split_seed_gives_another_split() -> None:
    one, other = (splits(sharing(split_seed=seed, shared_test=True))[0] for seed in (0, 1))

    assert not np.array_equal(one[1], other[1])


@pytest.mark.parametrize(
    "keys",
    [
        {"rare_classes": "789"},
        {"rare_classes": [7.5]},
        {"rare_sites": 2},
        {"rare_sites": -1},
        {"split_seed": -1},
        {"alpha": float("nan")},
        {"alpha": float("inf")},
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(TaskError, match="task_config"):
        sharing(**keys)


def test_rare_classes_that_nobody_has_are_named() -> None:
    with pytest.raises(TaskError, match=r"rare_classes that are in the data, \[17, 18\] are not"):
        sharing(rare_classes=[7, 18, 17]).split(LABELS, index=0, sites=3)


def test_more_sites_than_the_rows_are_enough_for_are_refused_at_once() -> None:
    with pytest.raises(DataError, match=r"no split of 2000 rows gives 1000000000 sites 10 each: take fewer sites"):
        sharing(alpha=1.0).split(LABELS, index=0, sites=10**9)


def test_rare_sites_must_leave_others() -> None:
    with pytest.raises(TaskError, match="rare_sites"):
        sharing(**RARE).split(LABELS, index=0, sites=3)


def test_rare_accuracy_is_that_of_the_rare_rows_and_left_out_without_any() -> None:
    logits = torch.eye(3)[[0, 1, 2, 2]]
    labels = torch.tensor([0, 1, 2, 1])

    scores = class_scores(logits, labels, rare_classes=[1])

    assert scores.metrics["accuracy"] == 0.75
    assert scores.metrics["accuracy_rare"] == 0.5
    assert "accuracy_rare" not in class_scores(logits, labels, rare_classes=[7]).metrics
    assert "accuracy_rare" not in class_scores(logits, labels).metrics
