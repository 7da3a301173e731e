"""Private heads: one trunk for the four hospitals of heart disease, though they do not measure or ask the same.

    masked     each hospital but the first lacks some of the findings, others each: they are 0 there
    opposite   two of the four ask whether a patient is healthy, the others whether there is disease

In both each hospital trains alone, all train one model, and all train one trunk with a head of their own (`keep`). AUC
on each hospital's own test patients, over seeds; virtual time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from fedbus.bench.figures import Row, row
from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation import SimulatedSite, Simulation, delays_of
from fedbus.tasks.heart_disease import fit, make_model, score, tensors
from fedbus.tasks.heart_disease_data import FILE_NAME, HOSPITALS, NUM_FEATURES, read_patients, split, write_site_data
from fedbus.training.run import Run
from fedbus.training.task import Scores

HIDDEN = 8
HEAD = "2.*"
MISSING = {"hungary": range(4), "switzerland": range(4, 8), "va-long-beach": range(8, 12)}
"""Which of the 15 features a hospital lacks."""
ASK_THE_OPPOSITE = ("hungary", "va-long-beach")
SCENARIOS = ("masked", "opposite")
WAYS = ("each alone", "one model for all", "one trunk, private heads")
VERSIONS = 60


class Unlike:
    """`heart_disease` at a hospital that lacks findings, or asks the opposite; `last`: what it measured last."""

    def __init__(self, folder: Path, hospital: str, *, scenario: str) -> None:
        train, test = split(read_patients(folder / FILE_NAME))
        self._scenario, self._hospital = scenario, hospital
        self._train, self._test = self._as_here(*tensors(train, _CPU)), self._as_here(*tensors(test, _CPU))
        self.last: Scores | None = None

    def _as_here(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self._scenario == "masked":
            seen = torch.ones(NUM_FEATURES)
            seen[list(MISSING.get(self._hospital, ()))] = 0.0
            return features * seen, labels
        return features, 1.0 - labels if self._hospital in ASK_THE_OPPOSITE else labels

    def model(self) -> nn.Module:
        return make_model(HIDDEN)

    def train(self, model: nn.Module, run: Run) -> int:
        fit(model, *self._train, run)
        return len(self._train[1])

    def evaluate(self, model: nn.Module) -> Scores:
        self.last = score(model, *self._test)
        return self.last


_CPU = torch.device("cpu")


def rows(*, seeds: int, say: Callable[[str], None], scenarios: Sequence[str] = SCENARIOS) -> list[Row]:
    """Return the AUC at each hospital and over all, by scenario and way; means over seeds."""
    torch.set_num_threads(1)
    made = []
    for scenario in scenarios:
        for way in WAYS:
            found = [_aucs(scenario, way, seed) for seed in range(seeds)]
            for hospital in HOSPITALS:
                value = fmean(aucs[hospital][0] for aucs in found)
                made.append(row(f"{scenario}, {way}, {hospital}: AUC", value, ""))
            overall = fmean(_weighted(list(aucs.values())) for aucs in found)
            made.append(row(f"{scenario}, {way}, all by test patients: AUC", overall, ""))
            say(f"{scenario}, {way}: {overall:.3f}")
    return made


def _weighted(found: Sequence[tuple[float, int]]) -> float:
    return sum(auc * count for auc, count in found) / sum(count for _, count in found)


def _aucs(scenario: str, way: str, seed: int) -> dict[str, tuple[float, int]]:
    """AUC and number of test patients of every hospital."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = {}
        for hospital in HOSPITALS:
            write_site_data(Path(folder) / hospital, hospital)
            tasks[hospital] = Unlike(Path(folder) / hospital, hospital, scenario=scenario)
    groups = [[hospital] for hospital in HOSPITALS] if way == WAYS[0] else [list(HOSPITALS)]
    for group in groups:
        _train({name: tasks[name] for name in group}, keep=[HEAD] if way == WAYS[2] else [], seed=seed)
    found = {}
    for hospital, task in tasks.items():
        measured = task.last
        if measured is not None:
            found[hospital] = (measured.metrics["auc"], measured.num_examples)
    return found


def _train(tasks: dict[str, Unlike], *, keep: list[str], seed: int) -> None:
    """Every task's `last` is then its score of the last version. A site alone makes as many updates as among all."""
    updates = 2 * VERSIONS if len(tasks) > 1 else 2 * VERSIONS // len(HOSPITALS)
    spec = TrainingSpec.parse(
        {
            "name": "personal",
            "task": "heart_disease",
            "local": {"steps": 10, "batch_size": 16, "learning_rate": 0.1, "evaluate": False},
            "keep": keep,
            "stop": {"updates": updates},
        }
    )
    delays = delays_of("geometric:3", len(tasks), seed=seed)
    sites = [SimulatedSite(name=n, task=t, delay=d) for (n, t), d in zip(tasks.items(), delays, strict=True)]
    Simulation(spec, sites, seed=seed, evaluate_every_s=1e9).run()
