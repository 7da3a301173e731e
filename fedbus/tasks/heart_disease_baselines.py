"""What the four hospitals reach without federation: each alone, and with all patients in one place.

Same model, same steps, same test patients as the task `heart_disease`. These need the whole shipped table, which a real
federation never has in one place; they are here so that a demo can show what federation is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from fedbus.core.spec.training import LocalSpec
from fedbus.tasks.heart_disease import fit, make_model, score, tensors
from fedbus.tasks.heart_disease_data import FILE_NAME, HOSPITALS, read_patients, split, write_site_data
from fedbus.training.run import Run
from fedbus.training.task import Scores

Half = tuple[Tensor, Tensor]


def local_only(
    *, steps: int, batch_size: int, learning_rate: float, seed: int = 0, hidden: int = 0
) -> dict[str, Scores]:
    """Train at each hospital alone and score it on that hospital's own test patients, by hospital."""
    local = LocalSpec(steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    return {
        hospital: _train(train, local, seed, hidden, {hospital: test})[hospital]
        for hospital, (train, test) in _hospitals().items()
    }


def pooled(*, steps: int, batch_size: int, learning_rate: float, seed: int = 0, hidden: int = 0) -> dict[str, Scores]:
    """Train on all hospitals' training patients together and score at each hospital."""
    local = LocalSpec(steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    halves = _hospitals()
    features = torch.cat([train[0] for train, _ in halves.values()])
    labels = torch.cat([train[1] for train, _ in halves.values()])
    return _train((features, labels), local, seed, hidden, {name: test for name, (_, test) in halves.items()})


def _hospitals() -> dict[str, tuple[Half, Half]]:
    """Return (train, test) by hospital, prepared as each site prepares its own."""
    halves = {}
    with TemporaryDirectory() as folder:
        for hospital in HOSPITALS:
            write_site_data(Path(folder), hospital)
            train, test = split(read_patients(Path(folder) / FILE_NAME))
            halves[hospital] = (tensors(train, torch.device("cpu")), tensors(test, torch.device("cpu")))
    return halves


def _train(train: Half, local: LocalSpec, seed: int, hidden: int, tests: Mapping[str, Half]) -> dict[str, Scores]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(hidden)
    fit(model, *train, Run(local, seed=seed))
    return {hospital: score(model, *test) for hospital, test in tests.items()}
