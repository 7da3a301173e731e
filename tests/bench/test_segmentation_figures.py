"""The benchmarks that train outlines in virtual time: one class at a site, exchanged classes, new studies later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedbus.bench import continual, label_faults_volumes, one_class
from fedbus.tasks.segmentation.cases import prepare_site
from fedbus.tasks.segmentation.config import read_config
from tests.small_kidneys import CONFIG, write_studies

STUDIES = {"a": 8, "b": 32, "c": 8}


def silent(text: str) -> None:
    """Nobody looks on."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per site."""
    folder = tmp_path_factory.mktemp("kidneys")
    rng = np.random.default_rng(1)
    for site, studies in STUDIES.items():
        write_studies(folder / site, [f"case_{site}{study}" for study in range(studies)], rng)
    return folder


def test_the_one_site_has_one_class_and_its_listing_says_what_the_rest_is(data: Path) -> None:
    for way, labelled in (("marginal loss", (1,)), ("taken for background", (1, 2))):
        task = one_class.as_drawn(data / "b", one_class.LISTED[way], CONFIG)
        assert (task.labelled, {int(case.label.max()) for case in task.test_cases}) == (labelled, {1})


def test_every_way_is_scored_on_the_full_labels_of_all_sites(data: Path) -> None:
    rows = one_class.rows(data, seeds=1, say=silent, trainings=1, config=CONFIG)
    wanted = {
        f"{way}, {where}: {name}"
        for way in one_class.WAYS
        for where in ("all sites", "b")
        for name in ("dice", "dice/kidney", "dice/tumour")
    }
    assert {row["case"] for row in rows} == wanted


def test_in_some_of_a_sites_studies_two_classes_are_exchanged(data: Path) -> None:
    cases = prepare_site(data / "b", read_config(CONFIG)).train
    changed = label_faults_volumes.exchanged(cases, 3, np.random.default_rng(0))
    other = [(new, old) for new, old in zip(changed, cases, strict=True) if (new.label != old.label).any()]
    assert len(other) == 3
    for new, old in other:
        assert ((new.label == 2) == (old.label == 1)).all()
        assert (new.middles[2] == old.middles[1]).all()


def test_a_site_with_exchanged_classes_is_named(data: Path) -> None:
    rows = label_faults_volumes.rows(
        data / "b", seeds=1, say=silent, trainings=3, given=CONFIG, shares=(0.5,), by_scale=False
    )
    assert [row["value"] for row in rows] == [1, 0]


def test_every_way_to_go_on_with_new_studies_is_measured(data: Path) -> None:
    setting = replace(continual.HIPPOCAMPUS, spec={**continual.HIPPOCAMPUS.spec, "task_config": CONFIG}, versions=2)
    rows = continual.rows(setting, data=data, seeds=1, say=silent)
    assert [0 <= row["value"] <= 1 for row in rows] == [True] * 6
