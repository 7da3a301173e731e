"""Task `digits`: which digit is this 8x8 image? scikit-learn's 1,797 digits, shared among sites with skewed labels.

    task_config   {alpha: 0.3, split_seed: 0, sites: null, rare_classes: null, rare_sites: 0, shared_test: false,
                  scanner_sites: 0, scanner_scale: 1.0, scanner_shift: 0.0, network: mlp, hidden: [64]}
                  how the images are shared: see `shares`; who scans them otherwise: `scanners`; network: mlp, cnn or
                  bn_cnn, see `networks`; hidden: widths of the mlp's hidden layers
    data          digits.json with {"index": 0, "sites": 4}: share 0 of 4; goes before task_config.sites
    metrics       accuracy, loss; accuracy_rare with rare_classes

The images (UCI, Optical Recognition of Handwritten Digits, CC BY 4.0) come with scikit-learn and not from the site's
folder.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbus.core.protocol.statistics import ClassLoss, Plan, Statistics
from fedbus.errors import ContractError, DataError, MissingPackageError
from fedbus.tasks import networks, scanners, shares
from fedbus.tasks.plausible import check_images
from fedbus.tasks.scanners import Scanner
from fedbus.tasks.shares import Rows, Sharing, class_scores, share_of
from fedbus.tasks.statistics.arrays import class_losses_of
from fedbus.tasks.statistics.pictures import picture_statistics
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site, settings_of

FILE_NAME = "digits.json"
SIDE, CLASSES = 8, 10
PIXELS, BRIGHTEST = SIDE**2, 16
MOST_PARAMS = 1 << 27


class Digits:
    """Reads handwritten digits with a small network."""

    def __init__(self, site: Site) -> None:
        config = _settings(site.config)
        self._config = site.config
        self._sharing = Sharing.of(config)
        index, sites = share_of(site, config["sites"], FILE_NAME)
        images, labels = load_digits_once()
        scanner = Scanner.of(config, index=index, sites=sites)
        train, test = self._sharing.split(labels.numpy(), index=index, sites=sites)
        self._train = _rows(images, labels, train, scanner, site.device)
        self._test = _rows(images, labels, test, scanner, site.device)

    @classmethod
    def statistics(cls, site: Site, plan: Plan) -> Statistics:
        """Of the rows that the site trains on and is tested on."""
        task = cls(site)
        images, labels = (torch.cat(both).numpy() for both in zip(task._train, task._test, strict=True))
        return picture_statistics(images * BRIGHTEST, labels, expected=range(CLASSES), plan=plan)

    def model(self) -> nn.Module:
        return self.network(self._config)

    @staticmethod
    def network(config: Mapping[str, Any]) -> nn.Module:
        settings = _settings(config)
        if settings["network"] == "mlp":
            return nn.Sequential(*networks.mlp((PIXELS, *settings["hidden"], CLASSES)))
        layers = networks.small_cnn(side=SIDE, classes=CLASSES, batch_norm=settings["network"] == "bn_cnn")
        return nn.Sequential(nn.Unflatten(1, (1, SIDE, SIDE)), *layers)

    @staticmethod
    def example_input(config: Mapping[str, Any]) -> Tensor:
        return torch.linspace(0.0, 1.0, 2 * PIXELS).reshape(2, PIXELS)

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

    def class_losses(self, model: nn.Module) -> dict[str, ClassLoss]:
        images, labels = (torch.cat(both) for both in zip(self._train, self._test, strict=True))
        with torch.no_grad():
            losses = functional.cross_entropy(model(images), labels, reduction="none")
        return class_losses_of(labels.cpu().numpy(), losses.cpu().numpy())


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of a task_config; `hidden` as widths. Raises ContractError."""
    settings = settings_of(config, **shares.DEFAULTS, **scanners.DEFAULTS, network="mlp", hidden=None)
    name = networks.network_name(settings["network"])
    if name != "mlp" and settings["hidden"] is not None:
        raise ContractError.of_job(f"task_config.hidden is for the network mlp; expected none with {name}")
    return settings | {"hidden": _widths(settings["hidden"])}


@cache
def load_digits_once() -> tuple[Tensor, Tensor]:
    """Return images fp32 [1797, 64] in 0..1 and labels int64 [1797]; all tasks of a process share one copy."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise MissingPackageError("the task digits", extra="digits", why=exc) from exc
    try:
        found = load_digits()
    except (OSError, EOFError, ValueError, zlib.error) as exc:
        raise DataError(f"scikit-learn's digits cannot be read: {exc!r}; install scikit-learn anew") from exc
    if found.data.shape[1:] != (PIXELS,):
        raise DataError(f"scikit-learn's digits: expected images of {PIXELS} pixels, got {found.data.shape}")
    check_images(found.data, found.target, brightest=BRIGHTEST, classes=CLASSES, where="scikit-learn's digits")
    return torch.tensor(found.data, dtype=torch.float32) / BRIGHTEST, torch.tensor(found.target, dtype=torch.int64)


def _widths(hidden: object) -> tuple[int, ...]:
    if hidden is None:
        return (64,)
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise ContractError.of_job(f"expected task_config.hidden to list widths such as [64, 64], got {hidden!r}")
    if not all(type(width) is int and width >= 1 for width in hidden):
        raise ContractError.of_job(f"expected task_config.hidden to list widths >= 1, got {list(hidden)}")
    numel = sum(wide * narrow for wide, narrow in pairwise((PIXELS, *hidden, CLASSES)))
    if numel > MOST_PARAMS:
        raise ContractError.of_job(f"expected task_config.hidden to make at most {MOST_PARAMS:,} params, got {numel:,}")
    return tuple(hidden)


def _rows(images: Tensor, labels: Tensor, rows: Rows, scanner: Scanner, device: torch.device) -> tuple[Tensor, Tensor]:
    at = torch.from_numpy(rows)
    return scanner.scan(images[at]).to(device), labels[at].to(device)
