"""What a job may say in `task_config`, and the words for what it may not."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from fedbus.errors import ContractError
from fedbus.imaging.problems import KINDS
from fedbus.tasks.segmentation.config import (
    AffineSpec,
    DynUNetSpec,
    FlipSpec,
    IntensitySpec,
    NoiseSpec,
    PercentileSpec,
    SegmentationConfig,
    SegResNetSpec,
    UNetSpec,
    ValidationSpec,
    WindowSpec,
    ZScoreSpec,
    read_config,
)

SECTIONS = (AffineSpec, FlipSpec, IntensitySpec, NoiseSpec, PercentileSpec, ValidationSpec, WindowSpec, ZScoreSpec)
TINY = {"classes": ["kidney", "tumour"], "patch_size": [16, 16, 16]}


def test_classes_are_a_list_or_names_by_value() -> None:
    assert read_config(TINY).names == {1: "kidney", 2: "tumour"}
    assert read_config(TINY | {"classes": {12: "b", 3: "a"}}).names == {3: "a", 12: "b"}
    assert read_config(MappingProxyType({"classes": MappingProxyType({"1": "kidney"})})).names == {1: "kidney"}


def test_a_section_may_be_the_name_of_its_kind() -> None:
    config = read_config(TINY | {"network": "segresnet", "intensity": "window"})

    assert isinstance(config.network, SegResNetSpec)
    assert isinstance(config.intensity, WindowSpec)
    assert isinstance(read_config(TINY | {"network": {"kind": "dynunet"}}).network, DynUNetSpec)
    assert isinstance(read_config(TINY).network, UNetSpec)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": []}, "task_config.classes"),
        ({"classes": {"0": "background"}}, "label values from 1 to 255"),
        ({"classes": {"1": "kidney/../x"}}, "task_config.classes.1: expected a name"),
        ({"classes": {"1": "a", "2": "a"}}, "each name once"),
        ({"network": "unett"}, "task_config.network.kind: expected one of unet, segresnet, dynunet"),
        ({"network": {"kind": "unet", "chanels": [4, 8]}}, "network.chanels: unknown key; did you mean 'channels'"),
        ({"network": {"kind": "unet", "channels": [4, 8192]}}, "task_config.network.channels.1"),
        ({"network": {"_target_": "os.system"}}, "task_config.network"),
        ({"patch_size": [16, 16, 20]}, "task_config.patch_size: expected multiples of 8"),
        ({"patch_size": [1024, 1024, 1024]}, "at most 16,777,216 voxels"),
        ({"spacing": [1.0, 1.0]}, "task_config.spacing"),
        ({"spacing": [1.0, 1.0, float("nan")]}, "task_config.spacing.2"),
        ({"intensity": {"kind": "window", "low": 5, "high": 5}}, "task_config.intensity.high: expected more than low"),
        ({"loss": "cross_entropy"}, "task_config.loss: expected one of dice_ce, dice, dice_focal"),
        ({"augment": {"flip": {"p": 2}}}, "task_config.augment.flip.p"),
        ({"augment": {"flip": {"axes": ["w"]}}}, "task_config.augment.flip.axes.0"),
        ({"validation": {"folds": 3, "fold": 3}}, "task_config.validation.fold: expected 0 to 2"),
        ({"foreground": "0.5"}, "task_config.foreground: expected a number"),
        ({"patchsize": [8, 8, 8]}, "did you mean 'patch_size'"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractError, match="task_config") as found:
        read_config(TINY | changes)

    assert words in found.value.said


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(ContractError, match=r"task_config\.loss.*task_config\.foreground"):
        read_config(TINY | {"loss": "x", "foreground": 3.0})


def test_every_key_stands_on_its_page() -> None:
    page = (Path(__file__).parents[3] / "deploy" / "docs" / "segmentation.md").read_text()
    sections = (SegmentationConfig, UNetSpec, SegResNetSpec, DynUNetSpec, *SECTIONS)

    missing = {
        key for section in sections for key in section.model_fields if f"{key}`" not in page and f"`{key}." not in page
    }

    assert not missing
    assert not {kind for kind in KINDS if f"`{kind}`" not in page} - {"no-studies"}
