"""The networks of the tasks with images, by the name that a job gives them in `task_config.network`.

    mlp      hidden layers of ReLU units: every number of it is learnt
    cnn      convolutions and ReLU without normalisation: every number of it is learnt
    bn_cnn   two blocks of convolution, BatchNorm2d, ReLU and pooling, and a linear head. Its running means and
             variances are state that is not learnt, as in most networks of medical imaging (Ioffe and Szegedy 2015,
             arXiv 1502.03167)

Images come with their pixels in a row, [n, side * side], or as [n, 1, side, side].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

from torch import nn

from fedbus.errors import ContractError

NETWORKS = ("mlp", "cnn", "bn_cnn")
CHANNELS = (8, 16)


def network_name(name: object) -> str:
    """Return `name` if it is one of NETWORKS. Raises ContractError."""
    if name not in NETWORKS:
        raise ContractError.of_job(f"expected task_config.network to be one of {', '.join(NETWORKS)}; got {name!r}")
    return str(name)


def mlp(widths: Sequence[int]) -> list[nn.Module]:
    """Return the layers that map [n, widths[0]] to logits [n, widths[-1]]."""
    layers = chain.from_iterable((nn.Linear(wide, narrow), nn.ReLU()) for wide, narrow in pairwise(widths))
    return list(layers)[:-1]


def small_cnn(*, side: int, classes: int, batch_norm: bool) -> list[nn.Module]:
    """Return the layers that map images [n, 1, side, side] to logits [n, classes]; `side` is a multiple of four."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise((1, *CHANNELS)):
        # what a bias adds, the normalisation would take away again
        layers += [nn.Conv2d(wide, narrow, 3, padding=1, bias=not batch_norm)]
        layers += [nn.BatchNorm2d(narrow)] if batch_norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return [*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * (side // 4) ** 2, classes)]
