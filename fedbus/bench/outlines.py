"""What the benchmarks that train outlines in virtual time share: the short job on the hippocampus, under the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation import SimulatedSite, Simulation, constant
from fedbus.tasks.segmentation import Segmentation
from fedbus.tensors.params import load_params_, unflatten
from fedbus.tensors.sharing import Sharing, layout_of

CONFIG: Mapping[str, Any] = {
    "classes": ["anterior", "posterior"],
    "patch_size": [32, 48, 32],
    "augment": {"flip": {"axes": ["x"]}},
}
LOCAL: Mapping[str, Any] = {"steps": 10, "batch_size": 4, "learning_rate": 0.005, "evaluate": False}
TRAININGS = 6
"""Of each site."""


def trained(tasks: Mapping[str, Segmentation], *, seed: int, trainings: int = TRAININGS) -> nn.Module:
    """Train one model at all sites, which are about equally fast; the last version, in eval mode."""
    spec = TrainingSpec.parse(
        {
            "name": "outlines",
            "task": "segmentation",
            "local": dict(LOCAL),
            "stop": {"updates": trainings * len(tasks)},
        }
    )
    sites = [
        SimulatedSite(name=name, task=task, delay=constant(1.0 + 0.1 * at))
        for at, (name, task) in enumerate(tasks.items())
    ]
    # no curve is looked at
    result = Simulation(spec, sites, seed=seed, evaluate_every_s=1e9, scorers=()).run()
    model = next(iter(tasks.values())).model()
    load_params_(model.state_dict(), unflatten(result.final_params, layout_of(model, Sharing())))
    return model.eval()
