"""A whole study through a network: in one pass where it is little larger than a patch, else by a sliding window."""

from __future__ import annotations

from math import ceil, prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbus.tasks.segmentation.cases import Case
from fedbus.tasks.segmentation.config import SegmentationConfig

ONE_PASS = 2.0
"""Patches of voxels up to which a study goes through the network at once."""
WINDOWS_AT_ONCE = 2


def logits_of(model: nn.Module, case: Case, config: SegmentationConfig, device: torch.device) -> Tensor:
    """Return logits fp32 [1, 1 + classes, X, Y, Z] of a case. The caller sees to eval mode and to no gradients."""
    image = torch.tensor(case.image)[None, None]
    factor = config.network.factor
    whole = [max(2 * factor, ceil(n / factor) * factor) for n in case.image.shape]
    if prod(whole) <= ONE_PASS * prod(config.patch_size):
        padded, box = _padded(image, whole, case.floor)
        found: Tensor = model(padded.to(device))
        return found[box].float()
    from monai.inferers import sliding_window_inference

    least = [max(n, side) for n, side in zip(case.image.shape, config.patch_size, strict=True)]
    padded, box = _padded(image, least, case.floor)
    summed = sliding_window_inference(
        padded,
        config.patch_size,
        WINDOWS_AT_ONCE,
        model,
        overlap=config.validation.overlap,
        mode="gaussian",
        sw_device=device,
        device=torch.device("cpu"),  # the sum of all windows of a large study need not fit beside the model
    )
    return torch.as_tensor(summed)[box].float()


def _padded(image: Tensor, sides: list[int], outside: float) -> tuple[Tensor, tuple[slice, ...]]:
    """Return an image [1, 1, X, Y, Z] grown to `sides` on both ends of each axis, and the box that it is there."""
    more = [wide - n for wide, n in zip(sides, image.shape[2:], strict=True)]
    pad = [part for extra in reversed(more) for part in (extra // 2, extra - extra // 2)]
    inner = (slice(extra // 2, extra // 2 + n) for extra, n in zip(more, image.shape[2:], strict=True))
    return functional.pad(image, pad, value=outside), (slice(None), slice(None), *inner)
