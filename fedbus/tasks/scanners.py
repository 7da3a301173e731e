"""Sites with different scanners: the last sites of a job see every image brighter and with more contrast, or less.

    scanner_sites   so many sites, the last ones, have the other scanner; 0: none
    scanner_scale   their pixels are scale * pixel + shift, where a pixel is from 0 (black) to 1 (white)
    scanner_shift

It is the simplest shift of features between hospitals (Li et al. 2021, FedBN, arXiv 2102.07623). A site trains on and
is tested on what its own scanner gives, also when `shared_test` tests all sites on the same rows: a hospital asks how
good the model is on its own images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fedbus.errors import ContractError

DEFAULTS: Mapping[str, Any] = MappingProxyType({"scanner_sites": 0, "scanner_scale": 1.0, "scanner_shift": 0.0})
"""The keys of a `task_config` that this module reads."""
LARGEST = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """What a site's scanner does to a pixel: scale * pixel + shift."""

    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any], *, index: int, sites: int) -> Scanner:
        """Return the scanner of site `index` of `sites`, by the keys of DEFAULTS. Raises ContractError."""
        others, scale, shift = settings["scanner_sites"], settings["scanner_scale"], settings["scanner_shift"]
        if not (0 < scale <= LARGEST and abs(shift) <= LARGEST):
            raise ContractError.of_job(
                f"expected task_config with 0 < scanner_scale <= {LARGEST:g} and scanner_shift from -{LARGEST:g} to "
                f"{LARGEST:g}, got {scale} and {shift}"
            )
        if not 0 <= others <= sites:
            raise ContractError.of_job(
                f"expected task_config.scanner_sites from 0 to {sites}, the number of sites; got {others}"
            )
        if (others > 0) != ((scale, shift) != (1.0, 0.0)):
            raise ContractError.of_job(
                "expected task_config.scanner_sites together with scanner_scale or scanner_shift, got "
                f"scanner_sites {others}, scanner_scale {scale}, scanner_shift {shift}"
            )
        return cls(scale=scale, shift=shift) if index >= sites - others else cls()

    def scan(self, images: Tensor) -> Tensor:
        """Return `images` as this scanner gives them; the same tensor where it changes nothing."""
        return images if self == Scanner() else images * self.scale + self.shift


def same_tests(config: Mapping[str, Any]) -> bool:
    """Whether a job's `task_config` tests all its sites on the same images, so that the scores of one are enough."""
    return bool(config.get("shared_test")) and not config.get("scanner_sites")
