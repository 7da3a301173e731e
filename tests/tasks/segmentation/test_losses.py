"""Losses against formulas written out, and the marginal loss of a site that has not labelled a class."""

from __future__ import annotations

import pytest
import torch

from fedbus.tasks.segmentation.losses import merged, segmentation_loss

LOGITS = torch.randn(2, 4, 3, 4, 5, generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(0, 4, (2, 3, 4, 5), generator=torch.Generator().manual_seed(2))


def test_cross_entropy_and_dice_are_those_of_the_textbook() -> None:
    p = LOGITS.softmax(1)
    dice = [2 * (p[:, c] * (c == TARGET)).sum() / (p[:, c].sum() + (c == TARGET).sum()) for c in (1, 2, 3)]
    expected = 1 - sum(dice) / 3

    found = segmentation_loss(LOGITS, TARGET, (1, 2, 3), "dice")
    both = segmentation_loss(LOGITS, TARGET.to(torch.uint8), (1, 2, 3), "dice_ce")

    assert float(found) == pytest.approx(float(expected), abs=1e-5)
    assert float(both - found) == pytest.approx(float(torch.nn.functional.cross_entropy(LOGITS, TARGET)), abs=1e-5)


def test_focal_loss_counts_what_is_known_less() -> None:
    sure = torch.nn.functional.one_hot(TARGET, 4).movedim(-1, 1).float() * 20

    assert float(segmentation_loss(sure, TARGET, (1, 2, 3), "dice_focal")) == pytest.approx(0, abs=1e-3)
    assert segmentation_loss(LOGITS, TARGET, (1, 2, 3), "dice_focal") < segmentation_loss(
        LOGITS, TARGET, (1, 2, 3), "dice_ce"
    )


def test_merging_adds_probabilities_of_classes_that_are_not_labelled_to_the_background() -> None:
    p, few = LOGITS.softmax(1), merged(LOGITS, (2,)).softmax(1)

    assert few.shape[1] == 2
    assert torch.allclose(few[:, 1], p[:, 2], atol=1e-6)
    assert torch.allclose(few[:, 0], p[:, [0, 1, 3]].sum(1), atol=1e-6)
    assert merged(LOGITS, (1, 2, 3)) is LOGITS


@pytest.mark.parametrize("kind", ["dice_ce", "dice", "dice_focal"])
def test_a_class_that_is_not_labelled_is_not_pushed_towards_the_background(kind: str) -> None:
    """Where a voxel is background or the class that nobody labelled, the two stand to each other as before."""
    logits = LOGITS.clone().requires_grad_()
    target = torch.where(TARGET == 1, 1, 0)

    segmentation_loss(logits, target, (1,), kind).backward()  # type: ignore[arg-type]  # one of the three kinds

    assert logits.grad is not None
    share = logits.detach()[:, [0, 2, 3]].softmax(1)
    slopes = logits.grad[:, [0, 2, 3]]
    assert torch.allclose(slopes, slopes.sum(1, keepdim=True) * share, atol=1e-7)
