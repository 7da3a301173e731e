"""Task `digits`: which digit is this 8x8 image? scikit-learn's 1,797 digits, shared among sites with skewed labels.

    task_config   {alpha: 0.3, split_seed: 0, sites: null}   sites may list site names; a site's place is its share
    data          digits.json with {"index": 0, "sites": 4}: share 0 of 4; goes before task_config.sites
    metrics       accuracy, loss

The images (UCI, Optical Recognition of Handwritten Digits, CC BY 4.0) come with scikit-learn and not from the site's
folder. For each digit, a Dirichlet(alpha) draw says how its images are shared: with a small alpha a site hardly knows
some digits. Every site computes the same split from `split_seed` and keeps its own share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbus.errors import DataError, TaskError
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site

FILE_NAME = "digits.json"
TEST_SHARE = 0.2
MIN_IMAGES = 10
MAX_DRAWS = 200


class Digits:
    """Reads handwritten digits with a small MLP."""

    def __init__(self, site: Site) -> None:
        config = site.settings(alpha=0.3, split_seed=0, sites=None)
        if config["alpha"] <= 0 or config["split_seed"] < 0:
            raise TaskError(f"expected task_config with alpha > 0 and split_seed >= 0, got {dict(site.config)}")
        index, sites = _share(site, config["sites"])
        images, labels = _load_digits()
        rng = np.random.default_rng(config["split_seed"])
        own = rng.permutation(dirichlet_shares(labels, sites, config["alpha"], rng)[index])
        tests = round(TEST_SHARE * len(own))
        self._test = _tensors(images[own[:tests]], labels[own[:tests]], site.device)
        self._train = _tensors(images[own[tests:]], labels[own[tests:]], site.device)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def train(self, model: nn.Module, run: Run) -> int:
        images, labels = self._train
        optimizer = torch.optim.SGD(model.parameters(), lr=run.learning_rate)
        for rows in run.batches(len(labels)):
            with run.autocast():
                logits = model(images[rows])
            loss = functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            (loss + run.proximal(model)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            run.report(loss)
        return len(labels)

    def evaluate(self, model: nn.Module) -> Scores:
        images, labels = self._test
        with torch.no_grad():
            logits = model(images)
        accuracy = float((logits.argmax(1) == labels).float().mean())
        loss = float(functional.cross_entropy(logits, labels))
        return Scores(metrics={"accuracy": accuracy, "loss": loss}, num_examples=len(labels))


def dirichlet_shares(
    labels: np.ndarray[Any, Any], sites: int, alpha: float, rng: np.random.Generator
) -> list[np.ndarray[Any, Any]]:
    """Share the indices of `labels` int [n] among `sites`, each index once (Hsu et al. 2019, arXiv 1909.06335).

    Draws again until every site has MIN_IMAGES; DataError when that does not happen.
    """
    for _ in range(MAX_DRAWS):
        parts: list[list[np.ndarray[Any, Any]]] = [[] for _ in range(sites)]
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            cuts = (np.cumsum(rng.dirichlet([alpha] * sites))[:-1] * len(rows)).astype(int)
            for part, chunk in zip(parts, np.split(rows, cuts), strict=True):
                part.append(chunk)
        shares = [np.concatenate(part) for part in parts]
        if min(map(len, shares)) >= MIN_IMAGES:
            return shares
    raise DataError(f"no split of {len(labels)} digits gives {sites} sites {MIN_IMAGES} each; raise alpha from {alpha}")


def _share(site: Site, names: object) -> tuple[int, int]:
    """Return (index, sites) from the data folder, else from the job's list of site names."""
    path = site.data / FILE_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        index, sites = found["index"], found["sites"]
    except FileNotFoundError as exc:
        if not isinstance(names, Sequence) or isinstance(names, str) or site.name not in names:
            raise DataError(
                f'expected {FILE_NAME} in {site.data} such as {{"index": 0, "sites": 4}}, or task_config.sites to list '
                f"{site.name!r}; found neither"
            ) from exc
        return list(names).index(site.name), len(names)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataError(f'{path}: expected JSON such as {{"index": 0, "sites": 4}}, got {exc!r}') from exc
    if not (isinstance(index, int) and isinstance(sites, int) and 0 <= index < sites):
        raise DataError(f"{path}: expected 0 <= index < sites, got index {index!r} and sites {sites!r}")
    return index, sites


def _load_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return images float64 [1797, 64] in 0..16 and labels int64 [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as exc:
        raise DataError(
            "the digits come with scikit-learn, which is not installed: pip install fedbus[digits]"
        ) from exc
    found = load_digits()
    return found.data, found.target


def _tensors(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images fp32 [n, 64] in 0..1 and labels int64 [n] on `device`."""
    scaled = torch.tensor(images, dtype=torch.float32, device=device) / 16
    return scaled, torch.tensor(labels, dtype=torch.int64, device=device)
