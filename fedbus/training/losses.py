"""The losses that one training reports: their mean, and when they ceased to be finite.

Nothing is read from the device while a training runs, but for one look at SCAN_EVERY losses at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCAN_EVERY = 256


class Losses:
    """Scalar losses in the order of the steps. `last` is the newest, on its device; None before the first."""

    def __init__(self) -> None:
        self.last: Tensor | None = None
        self._first: Tensor | None = None
        self._sum = torch.zeros(())
        self._count = 0
        self._recent: list[Tensor] = []
        self._scanned = 0
        self._first_bad: int | None = None
        self._last_good = math.nan

    def add(self, loss: Tensor) -> None:
        """Take one loss, a tensor without gradient and with one element."""
        self.last = loss
        self._sum = self._sum.to(loss.device) + loss
        self._count += 1
        if self._first is None:
            self._first = loss.clone()
        if self._first_bad is None:
            self._recent.append(loss)
            if len(self._recent) >= SCAN_EVERY:
                self._scan()

    @property
    def mean(self) -> float | None:
        """None when no loss was reported."""
        return float(self._sum) / self._count if self._count else None

    @property
    def first(self) -> float | None:
        return None if self._first is None else float(self._first)

    @property
    def first_bad(self) -> int | None:
        """The number, from 1, of the first loss that is not finite; None when all are."""
        self._scan()
        return self._first_bad

    @property
    def last_good(self) -> float:
        """The loss before `first_bad`, or the newest; NaN when there is none."""
        self._scan()
        return self._last_good

    def _scan(self) -> None:
        for value in torch.stack([loss.float().to("cpu") for loss in self._recent]).tolist() if self._recent else ():
            self._scanned += 1
            if self._first_bad is None and not math.isfinite(value):
                self._first_bad = self._scanned
            if self._first_bad is None:
                self._last_good = value
        self._recent.clear()
