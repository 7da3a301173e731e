"""A NIfTI file as an array in space, and the one line for each file that is none."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from fedbus.errors import StudyError
from fedbus.imaging.studies import Study
from fedbus.imaging.volumes import read_study, read_volume

RNG = np.random.default_rng(3)


def write(path: Path, array: Any, affine: Any = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine), path)
    return path


def image(path: Path, **keys: Any) -> Path:
    return write(path, RNG.integers(0, 200, (6, 5, 4)).astype(np.int16), **keys)


def kind_of(path: Path) -> str:
    with pytest.raises(StudyError) as found:
        read_volume(path)
    assert path.name in str(found.value)
    assert path.name not in found.value.said
    return found.value.kind


def test_array_spacing_and_orientation_are_those_of_the_file(tmp_path: Path) -> None:
    array = RNG.integers(0, 200, (6, 5, 4)).astype(np.uint8)
    found = read_volume(write(tmp_path / "a.nii.gz", array))

    assert np.array_equal(found.array, array)
    assert (found.dtype, found.spacing, found.orientation) == (np.uint8, (1.0, 2.0, 3.0), "RAS")


def test_a_name_that_is_not_ascii_is_read(tmp_path: Path) -> None:
    assert read_volume(image(tmp_path / "Jörg Łęcki 腎臓.nii.gz")).array.shape == (6, 5, 4)


def test_a_fourth_dimension_of_one_is_none(tmp_path: Path) -> None:
    assert read_volume(write(tmp_path / "a.nii", np.zeros((3, 4, 5, 1), np.int16))).array.shape == (3, 4, 5)


def test_canonical_turns_voxels_and_affine_together(tmp_path: Path) -> None:
    turned = np.array([[0, -2.0, 0, 9], [1.0, 0, 0, 1], [0, 0, 3.0, 2], [0, 0, 0, 1]])
    found = read_volume(image(tmp_path / "a.nii", affine=turned))

    same = found.canonical()

    assert (found.orientation, same.orientation) == ("ALS", "RAS")
    assert same.array.shape == (5, 6, 4)
    at = np.linalg.inv(same.affine) @ found.affine @ np.array([4, 1, 2, 1])
    x, y, z = np.round(at[:3]).astype(int)
    assert same.array[x, y, z] == found.array[4, 1, 2]


def test_a_file_cut_short_is_truncated(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz"):
        path = write(tmp_path / name, RNG.integers(0, 30_000, (30, 30, 30)).astype(np.int16))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert kind_of(path) == "truncated"


def test_an_empty_file_and_one_of_another_format_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch()
    (tmp_path / "b.nii").write_bytes(b"no image" * 100)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(b"no image" * 100))

    assert kind_of(tmp_path / "a.nii") in ("truncated", "unreadable")
    assert kind_of(tmp_path / "b.nii") == "unreadable"
    assert kind_of(tmp_path / "c.nii.gz") == "unreadable"


@pytest.mark.parametrize(
    ("shape", "kind"), [((32000, 32000, 4), "too-large"), ((900, 900, 900), "truncated"), ((5, 5, 0), "not-3d")]
)
def test_a_header_is_not_believed_before_the_file_is_read(shape: tuple[int, ...], kind: str, tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"] = [3, *shape, 1, 1, 1, 1]
    header["pixdim"] = 1
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(1000)))

    assert kind_of(tmp_path / "a.nii.gz") == kind


def test_four_dimensions_rgb_and_a_broken_affine_are_told(tmp_path: Path) -> None:
    rgb = np.zeros((3, 3, 3), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))

    assert kind_of(write(tmp_path / "a.nii", np.zeros((3, 3, 3, 2), np.int16))) == "not-3d"
    assert kind_of(write(tmp_path / "b.nii", rgb)) == "not-numbers"
    flat = image(tmp_path / "c.nii", affine=np.diag([1.0, 1.0, 1000.0, 1.0]))
    assert kind_of(flat) == "bad-geometry"


def test_a_label_turned_otherwise_than_its_image_is_laid_over_it(tmp_path: Path) -> None:
    path = image(tmp_path / "a.nii")
    mask = (read_volume(path).array > 100).astype(np.float64)
    write(tmp_path / "b.nii", mask[::-1], np.array([[-1.0, 0, 0, 5], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]))

    _, label = read_study(Study(id="a", image=path, label=tmp_path / "b.nii"))

    assert label.array.dtype == np.uint8
    assert np.array_equal(label.array, mask)


@pytest.mark.parametrize(
    ("label", "affine", "kind"),
    [
        (np.zeros((6, 5, 3)), None, "shape-mismatch"),
        (np.zeros((6, 5, 4)), np.diag([1.0, 2.0, 4.0, 1.0]), "affine-mismatch"),
        (np.full((6, 5, 4), 0.5), None, "label-values"),
        (np.full((6, 5, 4), -1.0), None, "label-values"),
        (np.full((6, 5, 4), np.nan), None, "label-values"),
    ],
)
def test_a_label_that_does_not_fit_its_image_is_told(label: Any, affine: Any, kind: str, tmp_path: Path) -> None:
    study = Study(id="a", image=image(tmp_path / "a.nii"), label=write(tmp_path / "b.nii", label, affine))

    with pytest.raises(StudyError, match=r"b\.nii") as found:
        read_study(study)

    assert found.value.kind == kind
