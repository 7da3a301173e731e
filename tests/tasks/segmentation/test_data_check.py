"""What the task says for a data check: statistics of a site's studies, and losses of its masks by class."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedbus.core.protocol.statistics import MOST_LOSS, Plan
from fedbus.tasks.segmentation import Segmentation
from fedbus.training.task import Site
from tests.small_kidneys import CONFIG, write_studies


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("kidneys")
    write_studies(folder, [f"case_{study}" for study in range(10)], np.random.default_rng(1))
    return Site(name="a", data=folder, config=CONFIG, seed=1, device=torch.device("cpu"))


def test_statistics_are_of_all_studies_and_expect_the_jobs_classes(site: Site) -> None:
    found = Segmentation.statistics(site, Plan(salt="0a"))
    assert found.examples == 10
    assert found.labels is not None
    assert (found.labels.expected, found.labels.counts["1"]) == ((0, 1, 2), 10)
    assert found.images is not None
    assert [spread.median for spread in found.images.spacing] == [4.0, 4.0, 4.0]
    assert len(found.prints) == 10


def test_losses_are_of_each_class_of_all_studies(site: Site) -> None:
    task = Segmentation(site)
    losses = task.class_losses(task.model().eval())
    assert set(losses) == {"1", "2"}
    assert losses["1"].examples == 10
    assert all(0 <= (loss.mean or 0.0) <= MOST_LOSS for loss in losses.values())


def test_a_mask_that_the_model_contradicts_has_the_highest_loss(site: Site) -> None:
    task = Segmentation(site)
    model = task.model().eval()
    last = [param for param in model.parameters() if param.shape == (3,)][-1]
    with torch.no_grad():
        last[:] = torch.tensor([0.0, -1e6, 1e6])
    losses = task.class_losses(model)
    assert losses["1"].mean == MOST_LOSS
