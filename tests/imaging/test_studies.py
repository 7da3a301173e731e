"""Which files of a folder are studies, and what is said of those that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fedbus.errors import DataError
from fedbus.imaging.problems import counted
from fedbus.imaging.studies import find_studies


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def kinds(folder: Path) -> str:
    return counted(problem.kind for problem in find_studies(folder).problems)


def test_a_decathlon_folder_is_found_with_the_names_of_its_classes(tmp_path: Path) -> None:
    put(tmp_path, *(f"{part}/case_{n}.nii.gz" for part in ("imagesTr", "labelsTr") for n in (2, 1)), "imagesTs/x.nii")
    listing = {"labels": {"0": "background", "1": "kidney"}, "training": [{"image": "./imagesTr/case_1.nii.gz"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(listing), encoding="utf-8-sig")

    found = find_studies(tmp_path)

    assert (found.layout, [study.id for study in found.labelled]) == ("msd", ["case_1", "case_2"])
    assert found.labels == {0: "background", 1: "kidney"}
    assert found.problems == ()


def test_the_listing_may_be_nnu_nets_and_may_be_absent(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    assert find_studies(tmp_path).labels == {}

    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "tumour": 2}}')

    found = find_studies(tmp_path)
    assert found.labels == {0: "background", 2: "tumour"}
    assert [study.id for study in found.labelled] == ["a"]


@pytest.mark.parametrize(
    "names",
    [
        ("images/a.nii.gz", "labels/a.nii"),
        ("images/a/1.dcm", "labels/a.nii.gz"),
        ("a/imaging.nii.gz", "a/segmentation.nii.gz"),
        ("a/dicom/1.dcm", "a/label.nii.gz"),
        ("a/1.dcm", "a/segmentation.nii.gz"),
        ("a/1.dcm", "a.nii.gz"),
    ],
)
def test_images_and_labels_are_paired(names: tuple[str, ...], tmp_path: Path) -> None:
    put(tmp_path, *names)

    found = find_studies(tmp_path)

    assert [study.id for study in found.labelled] == ["a"]
    assert found.layout == ("dicom" if "1.dcm" in names[0] else "paired")
    assert found.problems == ()


def test_a_label_named_on_macos_fits_an_image_named_on_linux(tmp_path: Path) -> None:
    put(tmp_path, "images/m\u00fcller.nii.gz", "labels/mu\u0308ller.nii.gz")

    assert [study.id for study in find_studies(tmp_path).labelled] == ["m\u00fcller"]


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("images/b.nii.gz",), "no-label"),
        (("labels/b.nii.gz",), "no-image"),
        (("images/a.nii",), "duplicate"),
        (("images/._a.nii.gz",), "macos-file"),
        (("images/b_0000.nii.gz", "images/b_0001.nii.gz", "labels/b.nii.gz"), "several-modalities"),
        (("images/" + os.fsdecode(b"b\xfc.nii.gz"),), "bad-name"),
    ],
)
def test_what_is_no_study_is_named_and_leaves_the_others_alone(
    names: tuple[str, ...], kind: str, tmp_path: Path
) -> None:
    put(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", *names)

    found = find_studies(tmp_path)

    assert [problem.kind for problem in found.problems if problem.kind != "no-image"] in ([kind], [])
    assert kind in kinds(tmp_path)
    assert any(str(problem).encode() and Path(names[0]).name[0] in str(problem) for problem in found.problems)
    assert [study.id for study in found.labelled] == ["a"]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/b.nii.gz", "site/images/a.nii.gz", "site/labels/a.nii.gz", "site/labels/b.nii.gz")
    (tmp_path / "site" / "images" / "b.nii.gz").symlink_to(tmp_path / "elsewhere" / "b.nii.gz")

    (tmp_path / "site" / "images" / "c.nii.gz").symlink_to(tmp_path / "site" / "images" / "c.nii.gz")

    assert kinds(tmp_path / "site") == "no-image 1, outside 2"


def test_a_listing_that_names_what_is_not_there_is_said(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text('{"training": [{"image": "./imagesTr/b.nii.gz"}]}')

    (problem,) = find_studies(tmp_path).problems

    assert problem.kind == "no-image"
    assert "imagesTr/b.nii.gz" in str(problem)


@pytest.mark.parametrize("text", ["no json", "[]", '{"labels": 3}', "[" * 100_000, '{"labels": {"1": "x"'])
def test_a_listing_that_is_none_is_said(text: str, tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "dataset.json").write_text(text)

    assert kinds(tmp_path) == "bad-listing 1"


def test_a_folder_without_studies_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="imagesTr"):
        find_studies(tmp_path)
    with pytest.raises(DataError, match="is it mounted"):
        find_studies(tmp_path / "absent")
