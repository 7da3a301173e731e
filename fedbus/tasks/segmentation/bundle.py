"""A job's network as a MONAI bundle has it, and an example of what it takes: what `fedbus export` writes and tries.

The bundle prepares an image as `cases` does: right, front and up as axes, the job's spacing and intensities. Only what
lies beside a volume smaller than a patch is the volume's edge there, and its darkest value here.
"""

from __future__ import annotations

from typing import Any, assert_never

import torch
from torch import Tensor

from fedbus.tasks.segmentation.config import Normalisation, PercentileSpec, SegmentationConfig, WindowSpec, ZScoreSpec
from fedbus.tasks.segmentation.networks import definition
from fedbus.training.bundle import BundleParts

EXAMPLE_FACTOR = 4
"""An example has so many times the sides that the network needs at least, up to a patch: it is computed twice."""


def example_of(config: SegmentationConfig) -> Tensor:
    """Two images fp32 [2, 1, X, Y, Z]: waves of normalised intensity."""
    sides = [min(side, EXAMPLE_FACTOR * config.network.factor) for side in config.patch_size]
    grid = torch.meshgrid(*(torch.linspace(-3.0, 3.0, side) for side in sides), indexing="ij")
    wave = torch.sin(grid[0]) * torch.cos(grid[1]) + torch.sin(2 * grid[2])
    return torch.stack([wave, -wave])[:, None]


def bundle_parts(config: SegmentationConfig) -> BundleParts:
    """The job's network, how an image comes to it, and what its channels mean."""
    steps = [
        _of("LoadImaged"),
        _of("EnsureChannelFirstd"),
        _of("Orientationd", axcodes="RAS"),
        *([] if config.spacing is None else [_of("Spacingd", pixdim=list(config.spacing), mode="bilinear")]),
        *_normalising(config.intensity),
        _of("EnsureTyped"),
    ]
    window = {"roi_size": list(config.patch_size), "sw_batch_size": 2, "overlap": config.validation.overlap}
    return BundleParts(
        network=definition(config),
        preprocessing=steps,
        inferer={"_target_": "SlidingWindowInferer", **window, "mode": "gaussian", "padding_mode": "replicate"},
        labels=dict(enumerate(config.names.values(), start=1)),
        spatial_shape=[f"{config.network.factor}*n"] * 3,
    )


def _normalising(spec: Normalisation) -> list[dict[str, Any]]:
    match spec:
        case ZScoreSpec():
            seen = "x[x != 0]" if spec.nonzero else "x"
            scaled = f"(x - {seen}.mean()) / {seen}.std(unbiased=False)"
            return [_of("Lambdad", func=f"$lambda x: ({scaled}).clamp(-{spec.clip}, {spec.clip})")]
        case PercentileSpec():
            return [_scaled("ScaleIntensityRangePercentilesd", lower=spec.low, upper=spec.high)]
        case WindowSpec():
            return [_scaled("ScaleIntensityRanged", a_min=spec.low, a_max=spec.high)]
        case _:
            assert_never(spec)


def _scaled(target: str, **bounds: float) -> dict[str, Any]:
    return _of(target, **bounds, b_min=0.0, b_max=1.0, clip=True)


def _of(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, "keys": "image", **arguments}
