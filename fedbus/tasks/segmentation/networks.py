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

    spec, out = config.network, 1 + len(config.classes)
    match spec:
        case UNetSpec():
            net: nn.Module = nets.UNet(
                spatial_dims=3,
                in_channels=1,
                out_channels=out,
                channels=spec.channels,
                strides=(2,) * (len(spec.channels) - 1),
                num_res_units=spec.res_units,
                norm=_norm(spec.norm),
            )
        case SegResNetSpec():
            net = nets.SegResNet(
                spatial_dims=3,
                in_channels=1,
                out_channels=out,
                init_filters=spec.filters,
                blocks_down=spec.blocks_down,
                blocks_up=(1,) * (len(spec.blocks_down) - 1),
                norm=_norm(spec.norm),
            )
        case DynUNetSpec():
            levels = len(spec.channels)
            net = nets.DynUNet(
                spatial_dims=3,
                in_channels=1,
                out_channels=out,
                kernel_size=(3,) * levels,
                strides=(1, *(2,) * (levels - 1)),
                upsample_kernel_size=(2,) * (levels - 1),
                filters=spec.channels,
                norm_name=_norm(spec.norm),
            )
        case _:
            assert_never(spec)
    return net


def _norm(norm: Norm) -> tuple[str, dict[str, Any]]:
    return ("BATCH", {}) if norm == "batch" else ("INSTANCE", {"affine": True})
