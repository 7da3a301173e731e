"""The networks of a job, made by MONAI; imported only in a trainer."""

from __future__ import annotations

from typing import Any, assert_never

from torch import nn

from fedbus.imaging.volumes import needed
from fedbus.tasks.segmentation.config import DynUNetSpec, Norm, SegmentationConfig, SegResNetSpec, UNetSpec


def make_network(config: SegmentationConfig) -> nn.Module:
    """Map images fp32 [n, 1, X, Y, Z] to logits [n, 1 + classes, X, Y, Z], channel 0 the background.

    Raises DataError when MONAI is not installed.
    """
    with needed("the task segmentation"):
        from monai.networks import nets

    arguments = definition(config)
    net: nn.Module = getattr(nets, arguments.pop("_target_"))(**arguments)
    return net


def definition(config: SegmentationConfig) -> dict[str, Any]:
    """Return the network as MONAI's bundles define one: the name of its class and its arguments, JSON-able."""
    spec, out = config.network, 1 + len(config.classes)
    common: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": out}
    match spec:
        case UNetSpec():
            return common | {
                "_target_": "UNet",
                "channels": list(spec.channels),
                "strides": [2] * (len(spec.channels) - 1),
                "num_res_units": spec.res_units,
                "norm": _norm(spec.norm),
            }
        case SegResNetSpec():
            return common | {
                "_target_": "SegResNet",
                "init_filters": spec.filters,
                "blocks_down": list(spec.blocks_down),
                "blocks_up": [1] * (len(spec.blocks_down) - 1),
                "norm": _norm(spec.norm),
            }
        case DynUNetSpec():
            levels = len(spec.channels)
            return common | {
                "_target_": "DynUNet",
                "kernel_size": [3] * levels,
                "strides": [1, *[2] * (levels - 1)],
                "upsample_kernel_size": [2] * (levels - 1),
                "filters": list(spec.channels),
                "norm_name": _norm(spec.norm),
            }
        case _:
            assert_never(spec)


def _norm(norm: Norm) -> list[Any]:
    return ["BATCH", {}] if norm == "batch" else ["INSTANCE", {"affine": True}]
