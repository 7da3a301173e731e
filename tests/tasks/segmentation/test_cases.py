"""What a site prepares once: the split, intensities, channels, and what becomes of studies that cannot be used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from fedbus.errors import StudyError
from fedbus.tasks.segmentation.augment import augmented, cut, draw_patch
from fedbus.tasks.segmentation.cases import Case, normalised, prepare_site, split
from fedbus.tasks.segmentation.config import (
    PercentileSpec,
    SegmentationConfig,
    ValidationSpec,
    WindowSpec,
    ZScoreSpec,
    read_config,
)

RNG = np.random.default_rng(1)
SMALL = {"kind": "unet", "channels": [4, 8]}


def config(**changes: Any) -> SegmentationConfig:
    return read_config({"classes": ["kidney", "tumour"], "patch_size": [8, 8, 8], "network": SMALL} | changes)


def case(name: str, shape: tuple[int, ...] = (4, 4, 4)) -> Case:
    image = RNG.standard_normal(shape).astype(np.float32)
    return Case(
        id=name, image=image, label=np.zeros(shape, np.uint8), spacing=(1, 1, 1), middles={}, floor=float(image.min())
    )


def write_studies(folder: Path, count: int = 4, *, values: tuple[int, ...] = (1, 2), size: float = 1.0) -> None:
    for n in range(count):
        label = np.zeros((10, 10, 10), np.uint8)
        for at, value in enumerate(values):
            label[2 + 3 * at : 4 + 3 * at, 3:6, 3:6] = value
        image = (label * 100 + RNG.normal(0, 5, label.shape)).astype(np.float32)
        for part, array in (("imagesTr", image), ("labelsTr", label)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.diag([size, size, size, 1])), folder / part / f"c{n}.nii.gz")


def test_a_study_stays_on_its_side_when_others_come() -> None:
    spec = ValidationSpec(share=0.25)
    few, many = [case(f"c{n}") for n in range(40)], [case(f"c{n}") for n in range(60)]

    train, test = split(few, spec)
    train_later, test_later = split(many, spec)

    assert 4 <= len(test) <= 20
    assert {c.id for c in test} <= {c.id for c in test_later}
    assert {c.id for c in train} <= {c.id for c in train_later}
    assert {c.id for c in split(many[::-1], spec)[1]} == {c.id for c in test_later}


def test_every_study_is_tested_in_one_fold_and_ten_studies_have_both_sides() -> None:
    cases = [case(f"c{n}") for n in range(30)]
    tested = [c.id for fold in range(3) for c in split(cases, ValidationSpec(folds=3, fold=fold))[1]]

    assert sorted(tested) == sorted(c.id for c in cases)
    for seed in range(20):
        train, test = split(cases[:10], ValidationSpec(split_seed=seed))
        assert train
        assert test


def test_intensities_of_scanners_that_scale_otherwise_become_alike() -> None:
    voxels = np.abs(RNG.normal(5, 2, (9, 9, 9))).astype(np.float32)
    voxels[:2] = 0

    for spec in (ZScoreSpec(), PercentileSpec()):
        found = normalised(voxels, spec)
        assert np.allclose(found, normalised(voxels * 1e6, spec), atol=1e-4)
    assert normalised(voxels, ZScoreSpec())[2:].std() == pytest.approx(1, abs=0.1)
    assert normalised(np.array([-500.0, 50, 900], np.float32), WindowSpec()).tolist() == [0, 0.5, 1]
    assert not normalised(np.full((3, 3, 3), 7, np.float32), ZScoreSpec()).any()


def test_studies_are_brought_to_one_spacing_and_values_to_channels(tmp_path: Path) -> None:
    write_studies(tmp_path, values=(7, 9), size=2.0)

    found = prepare_site(tmp_path, config(classes={9: "tumour", 7: "kidney"}, spacing=[1, 1, 1]))

    (one, *_) = (*found.train, *found.test)
    assert (one.image.shape, one.spacing, found.labelled) == ((20, 20, 20), (1, 1, 1), (1, 2))
    assert np.unique(one.label).tolist() == [0, 1, 2]
    assert all((one.label[tuple(voxel)] == channel) for channel, voxels in one.middles.items() for voxel in voxels)


def test_what_does_not_fit_in_memory_is_read_from_a_file_without_a_name(tmp_path: Path) -> None:
    write_studies(tmp_path)

    in_memory, on_disk = (prepare_site(tmp_path, config(), most_ram_bytes=most) for most in (1 << 30, 6000))

    kinds = [type(one.image) for one in (*on_disk.train, *on_disk.test)]
    assert kinds.count(np.memmap) == 3
    for a, b in zip(in_memory.train, on_disk.train, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.label, b.label)


def test_a_bad_study_is_left_out_and_named_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_studies(tmp_path, 5)
    path = tmp_path / "imagesTr" / "c3.nii.gz"
    path.write_bytes(path.read_bytes()[:300])
    (tmp_path / "labelsTr" / "c1.nii.gz").unlink()

    with caplog.at_level(logging.INFO):
        found = prepare_site(tmp_path, config())

    assert len(found.train) + len(found.test) == 3
    assert "c3.nii.gz" in caplog.text
    assert "no-label: " in caplog.text
    assert "3 studies" not in caplog.text


def test_a_site_without_studies_says_kinds_and_counts_and_no_name(tmp_path: Path) -> None:
    write_studies(tmp_path, 3)
    for path in (tmp_path / "imagesTr").iterdir():
        path.write_bytes(b"")

    with pytest.raises(StudyError, match="at least 2 studies") as found:
        prepare_site(tmp_path, config())

    assert found.value.kind == "no-studies"
    assert str(tmp_path) not in found.value.said
    assert "0 can be used; found: " in found.value.said


def test_values_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    write_studies(tmp_path, values=(1, 2, 11)[1:])

    with pytest.raises(StudyError, match=r"4 of 4 labels.*\[11\].*1 kidney, 2 tumour") as found:
        prepare_site(tmp_path, config())

    assert found.value.said == "4 of 4 labels have values that are no classes of the job"


@pytest.mark.parametrize("listing", [None, {"0": "background", "1": "kidney"}])
def test_a_class_that_a_site_has_not_labelled_is_known(listing: dict[str, str] | None, tmp_path: Path) -> None:
    write_studies(tmp_path, values=(1,))
    if listing:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": listing}))

    assert prepare_site(tmp_path, config()).labelled == (1,)


def test_a_class_that_a_listing_names_is_labelled_though_nobody_has_it(tmp_path: Path) -> None:
    write_studies(tmp_path, values=(1,))
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"kidney": 1, "tumour": 2}}))

    assert prepare_site(tmp_path, config()).labelled == (1, 2)


def test_empty_masks_are_refused(tmp_path: Path) -> None:
    write_studies(tmp_path, values=())

    with pytest.raises(StudyError, match="are the masks empty"):
        prepare_site(tmp_path, config())


def test_a_patch_is_cut_from_the_case_and_padded_with_its_darkest_value() -> None:
    one = case("c", (6, 12, 7))
    image, label = draw_patch(one, config(), np.random.default_rng(0))

    assert (tuple(image.shape), tuple(label.shape)) == ((1, 8, 8, 8), (8, 8, 8))
    assert np.isin(image.numpy(), [*one.image.ravel(), np.float32(one.floor)]).all()
    assert np.array_equal(cut(one.image, (1, 2, 3), (2, 2, 2), 0), one.image[1:3, 2:4, 3:5])


def test_augmentations_follow_from_the_generator_and_keep_label_on_image() -> None:
    spec = config(
        augment={"flip": {"p": 1}, "affine": {"p": 1}, "intensity": {"p": 1}, "noise": {"p": 1, "std": 0.01}}
    ).augment
    label = np.zeros((16, 16, 16), np.uint8)
    label[3:9, 4:12, 5:9] = 1
    from torch import from_numpy

    image = from_numpy(label.astype(np.float32) * 10)
    first, again = (augmented(image, from_numpy(label), spec, np.random.default_rng(5)) for _ in range(2))
    other, _ = augmented(image, from_numpy(label), spec, np.random.default_rng(6))

    assert first[0].equal(again[0])
    assert not first[0].equal(other)
    assert ((first[0][0] > 5) == (first[1] == 1)).float().mean() > 0.97
    assert 100 < int(first[1].sum()) < 300
