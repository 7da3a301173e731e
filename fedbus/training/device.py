"""Which device a trainer computes on, its threads and its seeds."""

from __future__ import annotations

import random

import numpy as np
import torch

from fedbus.errors import TaskError


def pick_device(name: str) -> torch.device:
    """Return the device that `name` asks for; `auto` is CUDA when there is one, else the CPU.

    Raises TaskError when the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise TaskError(f"device {name!r} cannot be used here ({exc}); set device to auto, cpu or cuda") from exc
    return device


def memory_of(device: torch.device) -> tuple[int, int]:
    """Bytes of a GPU's memory that are used, by this process or others, and all of them; (0, 0) for the CPU."""
    if device.type != "cuda":
        return 0, 0
    try:
        free, there = torch.cuda.mem_get_info(device)
    except RuntimeError:  # a device that is gone; the training itself finds that out
        return 0, 0
    return there - free, there


def is_broken(error: BaseException) -> bool:
    """Say whether `error` leaves the CUDA context unusable, so that only a new process can go on.

    Out of memory does not; an illegal access or a device-side assert does.
    """
    return isinstance(error, RuntimeError) and not isinstance(error, torch.cuda.OutOfMemoryError) and _says_cuda(error)


def _says_cuda(error: BaseException) -> bool:
    try:
        return "CUDA error" in str(error)
    except Exception:  # noqa: BLE001 - an error of a task's own whose text cannot be had
        return False


def seed_everything(seed: int) -> None:
    """Seed the generators of torch (all devices), numpy and Python; the same seed gives the same training."""
    if torch.cuda.is_available():
        torch.manual_seed(seed)
    else:  # without a device torch.manual_seed keeps a stack trace per call, for the day when there is one
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
