"""A whole study through a network, in windows of the size of the patches it was trained on.

A larger window would be faster, but in it instance normalisation meets another share of background than in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbus.tasks.segmentation.cases import Case
from fedbus.tasks.segmentation.config import SegmentationConfig

WINDOWS_AT_ONCE = 2


def logits_of(model: nn.Module, case: Case, config: SegmentationConfig, device: torch.device) -> Tensor:
    """Return logits fp32 [1, 1 + classes, X, Y, Z] of a case. The caller sees to eval mode and to no gradients."""
    image = torch.tensor(case.image)[None, None]
    least = [max(n, side) for n, side in zip(case.image.shape, config.patch_size, strict=True)]
    padded, box = _padded(image, least, case.floor)
    if least == list(config.patch_size):
        found: Tensor = model(padded.to(device))
        return found[box].float()
    from monai.inferers import sliding_window_inference

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
