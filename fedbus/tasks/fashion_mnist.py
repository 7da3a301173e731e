"""Task `fashion_mnist`: which garment is on this 28x28 image? Zalando's Fashion-MNIST, shared among sites.

    task_config   {alpha: 0.3, split_seed: 0, sites: null, rare_classes: null, rare_sites: 0, shared_test: false,
                  scanner_sites: 0, scanner_scale: 1.0, scanner_shift: 0.0, network: cnn, images: 12000,
                  momentum: 0.9}
                  how the images are shared: see `shares`; who scans them otherwise: `scanners`; network: cnn, or mlp
                  or bn_cnn, see `networks`; `images`: so many of the 60,000 training images, the first ones;
                  momentum of the site's SGD
    data          fashion_mnist.json with {"index": 0, "sites": 4}: share 0 of 4; goes before task_config.sites
                  the data set's two files, where the Debian package is not installed
    metrics       accuracy, loss; accuracy_rare with rare_classes

The images (Xiao et al. 2017, arXiv 1708.07747, MIT licence) are the Debian package `dataset-fashion-mnist`. The
default network is a CNN of 9,226 params without normalisation layers, so every number of it may be averaged.
"""

from __future__ import annotations

import gzip
import logging
import struct
import zlib
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbus.errors import ContractError, DataError
from fedbus.tasks import networks, scanners, shares
from fedbus.tasks.plausible import check_images
from fedbus.tasks.scanners import Scanner
from fedbus.tasks.shares import Sharing, class_scores, share_of
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site, settings_of

log = logging.getLogger(__name__)

FILE_NAME = "fashion_mnist.json"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
SIDE, CLASSES, MOST_IMAGES, BRIGHTEST = 28, 10, 60_000, 255
MLP_WIDTH = 64


class FashionMnist:
    """Tells garments apart with a small CNN."""

    def __init__(self, site: Site) -> None:
        config = _settings(site.config)
        self._config = site.config
        self._sharing, self._momentum = Sharing.of(config), config["momentum"]
        index, sites = share_of(site, config["sites"], FILE_NAME)
        scanner = Scanner.of(config, index=index, sites=sites)
        folder = site.data if (site.data / IMAGES).exists() else DEBIAN
        images, labels = load_once(folder, config["images"])
        train, test = self._sharing.split(labels.numpy(), index=index, sites=sites)
        at = torch.from_numpy(train)
        self._train = scanner.scan(images[at]).to(site.device), labels[at].to(site.device)
        self._test = _tests(folder, config["images"], tuple(test.tolist()), scanner, site.device)

    def model(self) -> nn.Module:
        return self.network(self._config)

    @staticmethod
    def network(config: Mapping[str, Any]) -> nn.Module:
        name = _settings(config)["network"]
        if name == "mlp":
            return nn.Sequential(nn.Flatten(), *networks.mlp((SIDE**2, MLP_WIDTH, CLASSES)))
        if name == "bn_cnn":
            return nn.Sequential(*networks.small_cnn(side=SIDE, classes=CLASSES, batch_norm=True))
        return nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 7 * 7, CLASSES),
        )

    @staticmethod
    def example_input(config: Mapping[str, Any]) -> Tensor:
        return torch.linspace(0.0, 1.0, 2 * SIDE**2).reshape(2, 1, SIDE, SIDE)

    def train(self, model: nn.Module, run: Run) -> int:
        images, labels = self._train
        optimizer = torch.optim.SGD(model.parameters(), lr=run.learning_rate, momentum=self._momentum)
        for rows in run.batches(len(labels)):
            with run.autocast():
                logits = model(images[rows])
            loss = functional.cross_entropy(logits.float(), labels[rows])
            optimizer.zero_grad()
            (loss + run.proximal(model)).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimizer.step()
            run.report(loss)
        return len(labels)

    def evaluate(self, model: nn.Module) -> Scores:
        images, labels = self._test
        with torch.no_grad():
            return class_scores(model(images), labels, self._sharing.rare_classes)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key of a task_config. Raises ContractError."""
    settings = settings_of(config, **shares.DEFAULTS, **scanners.DEFAULTS, network="cnn", images=12_000, momentum=0.9)
    if not (1 <= settings["images"] <= MOST_IMAGES and 0 <= settings["momentum"] < 1):
        raise ContractError.of_job(
            f"expected task_config with images from 1 to {MOST_IMAGES} and 0 <= momentum < 1, got {settings}"
        )
    networks.network_name(settings["network"])
    return settings


@cache
def load_once(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Return the first `count` images fp32 [count, 1, 28, 28] in 0..1 and labels int64 [count]; one copy per process.

    Raises DataError when the files are not there or not what they should be.
    """
    pixels = _read(folder / IMAGES, header=struct.pack(">4I", 0x803, MOST_IMAGES, SIDE, SIDE), count=count * SIDE**2)
    labels = _read(folder / LABELS, header=struct.pack(">2I", 0x801, MOST_IMAGES), count=count)
    for remark in check_images(
        pixels.reshape(count, -1), labels, brightest=BRIGHTEST, classes=CLASSES, where=str(folder)
    ):
        log.warning("%s", remark)
    images = torch.from_numpy(pixels.reshape(count, 1, SIDE, SIDE)).float() / BRIGHTEST
    return images, torch.from_numpy(labels).long()


@lru_cache(maxsize=64)
def _tests(
    folder: Path, count: int, rows: tuple[int, ...], scanner: Scanner, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Test images and labels on the device: sites that are tested on the same ones share them."""
    images, labels = load_once(folder, count)
    at = torch.tensor(rows, dtype=torch.int64)
    return scanner.scan(images[at]).to(device), labels[at].to(device)


def _read(path: Path, *, header: bytes, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Return the first `count` bytes after the header of an IDX file."""
    try:
        with gzip.open(path) as file:
            found = file.read(len(header) + count)
            while file.read(1 << 20):  # the checksum stands at the end
                pass
    except FileNotFoundError as exc:
        raise DataError(
            f"{path} is not there: install Fashion-MNIST (Debian: apt-get install dataset-fashion-mnist), or put "
            f"{IMAGES} and {LABELS} into the site's data folder"
        ) from exc
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(f"{path} cannot be read: {exc}; is it damaged or cut? install it anew") from exc
    if not found.startswith(header) or len(found) != len(header) + count:
        raise DataError(f"{path} is not the Fashion-MNIST file of this name; install it anew")
    return np.frombuffer(found, np.uint8, offset=len(header)).copy()
