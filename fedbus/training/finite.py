"""Why a training left params that are not finite: the model before it, the data, or steps that were too long.

What is known: the base params, the delta, and the losses that the task reported; a task's batches are not seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedbus.core.protocol.layout import Layout
from fedbus.errors import TaskError
from fedbus.tensors.tiles import tiles
from fedbus.training.losses import Losses

PART = 1 << 20
GROWN = 10.0
"""A loss that has become so many times the first one speaks of steps that are too long."""

INPUTS = "missing or infinite values in this site's inputs and labels"
SHOWN = 3


def is_finite(flat: Tensor) -> bool:
    """Say whether all elements of a flat vector are finite.

    A sum of squares is finite only where all its elements are, and costs a tenth of a look at each of them; it is
    infinite as well where elements above 1e16 or so are squared, and then they are looked at.
    """
    squares = [part @ part for (part,) in tiles(flat, size=PART)]
    if not squares or bool(torch.stack(squares).isfinite().all()):  # one wait for a device, not one per part
        return True
    return all(bool(part.isfinite().all()) for (part,) in tiles(flat))


def not_finite_names(flat: Tensor, layout: Layout) -> list[str]:
    """Return the names of the tensors in a flat vector [numel] that are not finite."""
    return [name for name, (start, stop) in layout.slices().items() if not is_finite(flat[start:stop])]


def not_finite_error(delta: Tensor, base: Tensor, layout: Layout, losses: Losses, *, steps: int) -> TaskError:
    """Return the error of a training whose delta is not finite, with what to look at first."""
    if named := _listed(not_finite_names(base, layout)):
        return TaskError(
            f"the model was not finite before the first step: {named}; nothing at this site mends that, it goes on "
            "with a version that is finite"
        )
    return TaskError(f"{_why(losses, steps)} (not finite: {_listed(not_finite_names(delta, layout))})")


def _why(losses: Losses, steps: int) -> str:
    first, bad, good = losses.first, losses.first_bad, losses.last_good
    after = f"params are not finite after {steps} steps"
    if first is None:
        return (
            f"{after}, and the task reports no loss to run.report(): look for {INPUTS}, then lower local.learning_rate"
        )
    if bad is None:
        return (
            f"training diverged: {after} though every loss was finite, the last {good:.4g}; lower local.learning_rate"
        )
    if bad == 1:
        return (
            f"the loss was not finite at the first step, before anything was learnt: look for {INPUTS}, then for a "
            "logarithm of 0 or a mean over nothing in the task's loss; another learning rate changes nothing"
        )
    if good > GROWN * max(abs(first), math.ulp(0.0)):
        return (
            f"training diverged: the loss was {first:.4g} at step 1, {good:.4g} at step {bad - 1} and not finite at "
            f"step {bad}; lower local.learning_rate"
        )
    return (
        f"the loss was {good:.4g} at step {bad - 1} and not finite at step {bad}: look for {INPUTS} in single "
        "examples, then lower local.learning_rate"
    )


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
