"""What a task says of its network so that it can be written as a MONAI bundle: `fedbus export --format monai-bundle`.

A task that can has, beside what `task.Exportable` asks for, a static `bundle(config)` that returns `BundleParts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleParts:
    """Each part as a bundle's configuration has it: mappings with `_target_`, names as MONAI has them.

    network: it must make the network of `Exportable.network`, tensor by tensor. preprocessing: transforms of `image`
    from a file's name to what the network takes. inferer: how the network is led over an image. labels: names by
    output channel, without the background. modality: such as CT or MR. spatial_shape: of an image, as bundles say it.
    """

    network: Mapping[str, Any]
    preprocessing: Sequence[Mapping[str, Any]]
    inferer: Mapping[str, Any]
    labels: Mapping[int, str]
    in_channels: int = 1
    modality: str = "unknown"
    spatial_shape: Sequence[int | str] = ("*", "*", "*")
