"""The task: trains a job's network on patches of a site's studies, and scores it on whole ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from fedbus.core.protocol.statistics import ClassLoss, Plan, Statistics
from fedbus.tasks.segmentation.augment import draw_patch
from fedbus.tasks.segmentation.bundle import bundle_parts, example_of
from fedbus.tasks.segmentation.cases import Case, Prepared, prepare_site
from fedbus.tasks.segmentation.config import SegmentationConfig, read_config
from fedbus.tasks.segmentation.losses import segmentation_loss
from fedbus.tasks.segmentation.networks import make_network
from fedbus.tasks.segmentation.windows import logits_of
from fedbus.tasks.statistics.arrays import class_losses_of
from fedbus.tasks.statistics.volumes import folder_statistics
from fedbus.training.bundle import BundleParts
from fedbus.training.run import Run
from fedbus.training.shown import ShownCase
from fedbus.training.task import Scores, Site

MOST_CHECKED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A model's answer to a test case: channels uint8 [X, Y, Z], loss, and Dice by class (NaN: none in the label)."""

    case: Case
    channels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
    loss: float
    dice: dict[str, float]

    @property
    def mean_dice(self) -> float:
        """Mean over the classes that the label has; NaN without any."""
        known = [value for value in self.dice.values() if not np.isnan(value)]
        return float(np.mean(known)) if known else float("nan")


class Segmentation:
    """Outlines the classes of a job in the imaging studies of one hospital."""

    def __init__(self, site: Site) -> None:
        config = read_config(site.config)
        make_network(config)  # says what is missing or does not fit before an hour of reading
        self._take(config, prepare_site(site.data, config), site.device)

    @classmethod
    def of(cls, config: SegmentationConfig, prepared: Prepared, device: torch.device) -> Self:
        """The task on cases that are prepared already, such as those of several sites together."""
        task = cls.__new__(cls)
        task._take(config, prepared, device)
        return task

    def _take(self, config: SegmentationConfig, prepared: Prepared, device: torch.device) -> None:
        self.config, self._site, self._device = config, prepared, device

    @property
    def test_cases(self) -> tuple[Case, ...]:
        """The studies that this site keeps for its scores, by id."""
        return self._site.test

    @property
    def labelled(self) -> tuple[int, ...]:
        """The channels that this site annotates, ascending."""
        return self._site.labelled

    def model(self) -> nn.Module:
        return make_network(self.config)

    @staticmethod
    def network(config: Mapping[str, Any]) -> nn.Module:
        return make_network(read_config(config))

    @staticmethod
    def example_input(config: Mapping[str, Any]) -> Tensor:
        return example_of(read_config(config))

    @staticmethod
    def bundle(config: Mapping[str, Any]) -> BundleParts:
        return bundle_parts(read_config(config))

    @classmethod
    def statistics(cls, site: Site, plan: Plan) -> Statistics:
        classes = read_config(site.config).names
        return folder_statistics(site.data, expected=(0, *classes), plan=plan)

    def class_losses(self, model: nn.Module) -> dict[str, ClassLoss]:
        """Of each class -log Dice of the masks that have it, of fewer than 2 * MOST_CHECKED studies, evenly chosen.

        So a mask that the model contradicts counts as much as a label of one example does with cross-entropy.
        """
        values = {name: value for value, name in self.config.names.items()}
        cases = [*self._site.train, *self.test_cases]
        found = [self.predict(model, case).dice for case in cases[:: max(1, len(cases) // MOST_CHECKED)]]
        pairs = [(values[name], dice) for one in found for name, dice in one.items() if not np.isnan(dice)]
        with np.errstate(divide="ignore"):  # a Dice of 0 is cut like every loss above the most
            return class_losses_of([value for value, _ in pairs], -np.log([dice for _, dice in pairs]))

    def train(self, model: nn.Module, run: Run) -> int:
        params = [param for param in model.parameters() if param.requires_grad]
        optimizer = torch.optim.Adam(params, lr=run.learning_rate, weight_decay=self.config.weight_decay)
        seed, cases = run.generator.initial_seed(), self._site.train

        def batch(step: int, rows: Tensor) -> tuple[Tensor, Tensor]:
            drawn = [
                draw_patch(cases[row], self.config, np.random.default_rng([seed, step, row])) for row in rows.tolist()
            ]
            return self._as_batch(drawn)

        for images, labels in run.fetched(len(cases), batch):
            images, labels = images.to(self._device), labels.to(self._device)  # noqa: PLW2901 - the same batch
            with run.autocast():
                logits = model(images)
            loss = segmentation_loss(logits, labels, self._site.labelled, self.config.loss, whole=run.whole)
            optimizer.zero_grad()
            (loss + run.proximal(model)).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            nn.utils.clip_grad_norm_(params, self.config.clip_norm)
            optimizer.step()
            run.report(loss)
        return len(cases)

    def evaluate(self, model: nn.Module) -> Scores:
        found = [self.predict(model, case) for case in self.test_cases]
        values = {"dice": [one.mean_dice for one in found], "loss": [one.loss for one in found]}
        for name in self.config.names.values():
            values[f"dice/{name}"] = [one.dice.get(name, float("nan")) for one in found]
        return Scores.of_cases(values)

    def predict(self, model: nn.Module, case: Case) -> Prediction:
        """Outline a case. The model is in eval mode; no gradients are kept."""
        labelled = self._site.labelled
        with torch.no_grad():
            logits = logits_of(model, case, self.config, self._device)
            target = torch.tensor(case.label).to(logits.device)
            loss = float(segmentation_loss(logits, target[None], labelled, self.config.loss))
            channels = logits[0].argmax(dim=0).to(torch.uint8)
        names = list(self.config.names.values())
        dice = {names[at - 1]: _dice(channels == at, target == at) for at in labelled}
        return Prediction(case=case, channels=channels.cpu().numpy(), loss=loss, dice=dice)

    def cases(self, model: nn.Module) -> Iterator[ShownCase]:
        """Show every test case with its outlines, to people at the site."""
        classes = dict(enumerate(self.config.names.values(), start=1))
        for case in self.test_cases:
            found = self.predict(model, case)
            yield ShownCase(
                id=case.id,
                image=case.image,
                label=case.label,
                prediction=found.channels,
                spacing=case.spacing,
                classes=classes,
                scores=found.dice,
            )

    def _as_batch(self, drawn: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        images = torch.stack([image for image, _ in drawn])
        labels = torch.stack([label for _, label in drawn])
        if self._device.type == "cuda":
            return images.pin_memory(), labels.pin_memory()
        # a CPU convolves a third faster where the channels of a voxel lie together
        return images.contiguous(memory_format=torch.channels_last_3d), labels


def _dice(found: Tensor, true: Tensor) -> float:
    """Dice of two masks; NaN where the true one is empty."""
    if not true.any():
        return float("nan")
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))
