"""Task `synthetic`: params of any size and training that does next to nothing, to measure the transport.

    task_config   {numel: 262144, tensors: 4, step_s: 0.0, block_s: 0.0}
                  step_s    each step sleeps so long
                  block_s   the first step blocks so long and looks at nothing meanwhile, like a very large batch
    data          none; the folder may be empty
    metrics       mean_abs

Each step adds seeded uniform noise of at most NOISE, so that updates differ and compress as badly as real ones.
"""

from __future__ import annotations

import time

import torch
from torch import nn

from fedbus.errors import ContractError
from fedbus.training.run import Run
from fedbus.training.task import Scores, Site

NOISE = 1e-3


class Synthetic:
    """A model without a purpose."""

    def __init__(self, site: Site) -> None:
        config = site.settings(numel=1 << 18, tensors=4, step_s=0.0, block_s=0.0)
        self._numel, self._tensors = int(config["numel"]), int(config["tensors"])
        self._step_s, self._block_s = float(config["step_s"]), float(config["block_s"])
        if not 1 <= self._tensors <= self._numel or self._step_s < 0 or self._block_s < 0:
            raise ContractError.of_job(f"expected task_config with 1 <= tensors <= numel and times >= 0, got {config}")

    def model(self) -> nn.Module:
        """Make `tensors` fp32 vectors of equal length, the last one with the rest; `numel` elements in all."""
        each = self._numel // self._tensors
        sizes = [each] * (self._tensors - 1) + [self._numel - each * (self._tensors - 1)]
        return nn.ParameterList([nn.Parameter(torch.empty(size).uniform_(-1, 1)) for size in sizes])

    def train(self, model: nn.Module, run: Run) -> int:
        noise = torch.Generator(run.device).manual_seed(run.generator.initial_seed())
        for step in run.steps(per_epoch=1):
            time.sleep(self._block_s if step == 0 else 0)
            time.sleep(self._step_s)
            with torch.no_grad():
                for param in model.parameters():
                    param.add_(torch.empty_like(param).uniform_(-NOISE, NOISE, generator=noise))
        return 1

    def evaluate(self, model: nn.Module) -> Scores:
        mean_abs = sum(float(param.abs().sum()) for param in model.parameters()) / self._numel
        return Scores.of_cases({"mean_abs": [mean_abs]})
