"""Task `digits`: which digit is this 8x8 image? scikit-learn's 1,797 digits, shared among sites with skewed labels.

    task_config   {alpha: 0.3, split_seed: 0, sites: null, rare_classes: null, rare_sites: 0, shared_test: false,
                  hidden: [64]}   how the images are shared: see `shares`; hidden: widths of the hidden layers
    data          digits.json with {"index": 0, "sites": 4}: share 0 of 4; goes before task_config.sites
    metrics       accuracy, loss; accuracy_rare with rare_classes

The images (UCI, Optical Recognition of Handwritten Digits, CC BY 4.0) come with scikit-learn and not from the site's
folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbus.errors import ContractError, DataError
from fedbus.tasks.shares import DEFAULTS, Rows, Sharing, class_scores, share_of
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site

FILE_NAME = "digits.json"
PIXELS, CLASSES = 64, 10


class Digits:
    """Reads handwritten digits with a small MLP."""

    def __init__(self, site: Site) -> None:
        config = site.settings(**DEFAULTS, hidden=None)
        self._sharing = Sharing.of(config)
        self._hidden = _widths(config["hidden"])
        index, sites = share_of(site, config["sites"], FILE_NAME)
        images, labels = load_digits_once()
        train, test = self._sharing.split(labels.numpy(), index=index, sites=sites)
        self._train = _rows(images, labels, train, site.device)
        self._test = _rows(images, labels, test, site.device)

    def model(self) -> nn.Module:
        widths = (PIXELS, *self._hidden, CLASSES)
        layers = chain.from_iterable((nn.Linear(wide, narrow), nn.ReLU()) for wide, narrow in pairwise(widths))
        return nn.Sequential(*list(layers)[:-1])

    def train(self, model: nn.Module, run: Run) -> int:
        images, labels = self._train
        params = [param for param in model.parameters() if param.requires_grad]
        for rows in run.batches(len(labels)):
            with run.autocast():
                logits = model(images[rows])
            loss = functional.cross_entropy(logits.float(), labels[rows])
            # plain SGD; on a model this small the bookkeeping of torch.optim would take longer than the step
            slopes = torch.autograd.grad(loss + run.proximal(model), params)
            with torch.no_grad():
                for param, slope in zip(params, slopes, strict=True):
                    param.sub_(slope, alpha=run.learning_rate)
            run.report(loss)
        return len(labels)

    def evaluate(self, model: nn.Module) -> Scores:
        images, labels = self._test
        with torch.no_grad():
            return class_scores(model(images), labels, self._sharing.rare_classes)


@cache
def load_digits_once() -> tuple[Tensor, Tensor]:
    """Return images fp32 [1797, 64] in 0..1 and labels int64 [1797]; all tasks of a process share one copy."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise DataError(
            "the digits come with scikit-learn, which is not installed: pip install fedbus[digits]"
        ) from exc
    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target, dtype=torch.int64)


def _widths(hidden: object) -> tuple[int, ...]:
    if hidden is None:
        return (64,)
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise ContractError.of_job(f"expected task_config.hidden to list widths such as [64, 64], got {hidden!r}")
    if not all(type(width) is int and width >= 1 for width in hidden):
        raise ContractError.of_job(f"expected task_config.hidden to list widths >= 1, got {list(hidden)}")
    return tuple(hidden)


def _rows(images: Tensor, labels: Tensor, rows: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
    at = torch.from_numpy(rows)
    return images[at].to(device), labels[at].to(device)
