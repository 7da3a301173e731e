"""One data set with classes, shared among sites: who trains on which rows, and who is tested on which.

What lives here: rows and labels of the tasks that share a public data set (`digits`, `fashion_mnist`). What may not:
images, models. Every site computes the same split from `split_seed` and keeps its own share.

    alpha          each class is shared by a Dirichlet(alpha) draw (Hsu et al. 2019, arXiv 1909.06335): with a small
                   alpha a site hardly knows some classes
    sites          may list site names; a site's place in it is its share
    rare_classes   the last `rare_sites` sites have these classes among themselves and no others, the other sites have
                   the rest; each part is shared by Dirichlet(alpha). Their accuracy is a metric of its own
    shared_test    every site is tested on the same rows, SHARED_TEST of all, on which nobody trains;
                   otherwise each is tested on TEST_SHARE of its own
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fedbus.errors import ContractError, DataError
from fedbus.training.task import Scores, Site

Rows = NDArray[np.int64]

TEST_SHARE = 0.2
SHARED_TEST = 0.221
MIN_ROWS = 10
MAX_DRAWS = 200

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"alpha": 0.3, "split_seed": 0, "sites": None, "rare_classes": None, "rare_sites": 0, "shared_test": False}
)
"""The keys of a `task_config` that this module reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """How a job shares its data set."""

    alpha: float
    split_seed: int
    rare_classes: tuple[int, ...]
    rare_sites: int
    shared_test: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Sharing:
        """Read the keys of DEFAULTS. Raises ContractError."""
        rare = settings["rare_classes"] or ()
        if not 0 < settings["alpha"] < math.inf or settings["split_seed"] < 0 or settings["rare_sites"] < 0:
            raise ContractError.of_job(
                f"expected task_config with finite alpha > 0, split_seed and rare_sites >= 0, got {settings}"
            )
        if isinstance(rare, str) or not isinstance(rare, Sequence) or not all(type(label) is int for label in rare):
            raise ContractError.of_job(
                f"expected task_config.rare_classes to list classes such as [7, 8, 9], got {rare!r}"
            )
        if settings["rare_sites"] and not rare:
            raise ContractError.of_job(
                "task_config.rare_sites needs rare_classes, the classes that these sites alone have"
            )
        return cls(
            alpha=settings["alpha"],
            split_seed=settings["split_seed"],
            rare_classes=tuple(rare),
            rare_sites=settings["rare_sites"],
            shared_test=settings["shared_test"],
        )

    def split(self, labels: Rows, *, index: int, sites: int) -> tuple[Rows, Rows]:
        """Return the rows of `labels` int [n] that the site trains on and is tested on. DataError or ContractError."""
        if strangers := sorted(set(self.rare_classes).difference(labels.tolist())):
            raise ContractError.of_job(f"expected task_config.rare_classes that are in the data, {strangers} are not")
        rng = np.random.default_rng(self.split_seed)
        if not self.shared_test:
            own = rng.permutation(self._shares(labels, sites, rng)[index])
            tests = round(TEST_SHARE * len(own))
            return own[tests:], own[:tests]
        rows = rng.permutation(len(labels))
        tests = round(SHARED_TEST * len(rows))
        rest = rows[tests:]
        return rest[self._shares(labels[rest], sites, rng)[index]], rows[:tests]

    def _shares(self, labels: Rows, sites: int, rng: np.random.Generator) -> list[Rows]:
        if not self.rare_sites:
            return dirichlet_shares(labels, sites, self.alpha, rng)
        if self.rare_sites >= sites:
            raise ContractError.of_job(
                f"task_config.rare_sites is {self.rare_sites}, which leaves none of {sites} sites for the rest"
            )
        rare = np.isin(labels, self.rare_classes)
        shares: list[Rows] = []
        for part, among in ((~rare, sites - self.rare_sites), (rare, self.rare_sites)):
            rows = np.flatnonzero(part)
            shares += [rows[share] for share in dirichlet_shares(labels[rows], among, self.alpha, rng)]
        return shares


def dirichlet_shares(labels: Rows, sites: int, alpha: float, rng: np.random.Generator) -> list[Rows]:
    """Share the indices of `labels` int [n] among `sites`, each index once (Hsu et al. 2019, arXiv 1909.06335).

    Draws again until every site has MIN_ROWS; DataError when that does not happen.
    """
    possible = sites * MIN_ROWS <= len(labels)
    for _ in range(MAX_DRAWS if possible else 0):
        parts: list[list[Rows]] = [[] for _ in range(sites)]
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            cuts = (np.cumsum(rng.dirichlet([alpha] * sites))[:-1] * len(rows)).astype(int)
            for part, chunk in zip(parts, np.split(rows, cuts), strict=True):
                part.append(chunk)
        shares = [np.concatenate(part) for part in parts]
        if min(map(len, shares)) >= MIN_ROWS:
            return shares
    advice = (
        f"raise alpha from {alpha}, or take fewer sites"
        if possible
        else "take fewer sites, to raise alpha does not help"
    )
    raise DataError(f"no split of {len(labels)} rows gives {sites} sites {MIN_ROWS} each: {advice}")


def share_of(site: Site, names: object, file_name: str) -> tuple[int, int]:
    """Return (index, sites) from `file_name` in the site's data folder, else from the job's list of site names."""
    path = site.data / file_name
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        index, sites = found["index"], found["sites"]
    except FileNotFoundError as exc:
        if not isinstance(names, Sequence) or isinstance(names, str) or site.name not in names:
            raise DataError(
                f'expected {file_name} in {site.data} such as {{"index": 0, "sites": 4}}, or task_config.sites to list '
                f"{site.name!r}; found neither"
            ) from exc
        if len(set(names)) < len(names):
            raise ContractError.of_job(f"expected task_config.sites to name each site once, got {list(names)}") from exc
        return list(names).index(site.name), len(names)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DataError(f'{path}: expected JSON such as {{"index": 0, "sites": 4}}, got {exc!r}') from exc
    if not (type(index) is int and type(sites) is int and 0 <= index < sites):
        raise DataError(f"{path}: expected 0 <= index < sites, got index {index!r} and sites {sites!r}")
    return index, sites


def class_scores(logits: Tensor, labels: Tensor, rare_classes: Sequence[int] = ()) -> Scores:
    """Return accuracy and loss of `logits` fp32 [n, classes] against `labels` int64 [n].

    With `rare_classes` also `accuracy_rare`, over the rows of these classes; left out when there is none.
    """
    right = (logits.argmax(1) == labels).float()
    cases = {"accuracy": right, "loss": functional.cross_entropy(logits, labels, reduction="none")}
    rare = sum((labels == label for label in rare_classes), labels.new_zeros(len(labels)).bool())
    if bool(rare.any()):
        cases["accuracy_rare"] = right.masked_fill(~rare, float("nan"))
    return Scores.of_cases(cases)
