"""Statistics of a folder of studies: what is counted, what is seen of masks, and what a broken study changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedbus.core.check.report import findings
from fedbus.core.protocol.statistics import Plan, Statistics, withheld
from fedbus.imaging.kidneys import write_kidneys
from fedbus.imaging.volumes import Volume
from fedbus.tasks.statistics.volumes import Seen, folder_statistics, volumes_statistics

nibabel = pytest.importorskip("nibabel", reason="NIfTI files are written with nibabel, of the extra monai")
PLAN = Plan(salt="5a" * 8)
SIDE = 16


def study(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A bright organ with a brighter part, on the left: [SIDE, SIDE, SIDE] and its mask."""
    mask = np.zeros((SIDE,) * 3, np.uint8)
    at = rng.integers(2, 4, 3)
    mask[at[0] : at[0] + 5, at[1] : at[1] + 8, at[2] : at[2] + 6] = 1
    mask[at[0] : at[0] + 2, at[1] : at[1] + 3, at[2] : at[2] + 3] = 2
    image = (100 + 50 * mask + rng.normal(0, 5, mask.shape)).astype(np.float32)
    return image, mask


def seen(image: NDArray[np.float32], mask: NDArray[np.uint8], spacing: float = 1.0) -> Seen:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    return Seen(image=Volume(array=image, affine=affine, dtype=np.dtype(np.int16)), mask=mask)


def site(seed: int, change: Callable[[Seen], Seen] = lambda one: one, count: int = 24) -> Statistics:
    rng = np.random.default_rng(seed)
    volumes = [change(seen(*study(rng))) for _ in range(count)]
    return withheld(volumes_statistics(volumes, expected=(0, 1, 2), plan=PLAN), PLAN)


def with_mask(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Callable[[Seen], Seen]:
    def changed(one: Seen) -> Seen:
        assert one.mask is not None
        return Seen(image=one.image, mask=change(one.mask))

    return changed


def scaled(factor: float) -> Callable[[Seen], Seen]:
    return lambda one: Seen(
        image=Volume(array=one.image.array * factor, affine=one.image.affine, dtype=one.image.dtype), mask=one.mask
    )


def spaced(factor: float) -> Callable[[Seen], Seen]:
    return lambda one: Seen(
        image=Volume(array=one.image.array, affine=one.image.affine * factor, dtype=one.image.dtype), mask=one.mask
    )


FAULTS: Sequence[tuple[str, Callable[[Seen], Seen]]] = [
    ("one-based-labels", with_mask(lambda mask: mask + np.uint8(1))),
    ("label-out-of-range", with_mask(lambda mask: np.where(mask == 2, 11, mask).astype(np.uint8))),
    ("mirrored-masks", with_mask(lambda mask: np.ascontiguousarray(mask[::-1]))),
    ("intensity-scale", scaled(1000.0)),
    ("spacing-unit", spaced(0.001)),
    ("spacing-unit", spaced(0.1)),
]


@pytest.fixture(scope="module")
def clean() -> dict[str, Statistics]:
    return {f"site-{number}": site(number) for number in (1, 2, 3)}


def test_clean_sites_have_nothing_found(clean: dict[str, Statistics]) -> None:
    assert findings(clean) == ()


@pytest.mark.parametrize(("kind", "change"), FAULTS, ids=[f"{kind} {at}" for at, (kind, _) in enumerate(FAULTS)])
def test_a_fault_is_found_at_its_site_and_nowhere_else(
    clean: dict[str, Statistics], kind: str, change: Callable[[Seen], Seen]
) -> None:
    found = [one for one in findings({**clean, "site-2": site(2, change)}) if one.severity != "notice"]
    assert kind in {one.kind for one in found}
    assert {one.sites for one in found} == {("site-2",)}


def test_a_fifth_of_empty_masks_is_found(clean: dict[str, Statistics]) -> None:
    rng = np.random.default_rng(7)
    volumes = [seen(image, mask * (at % 5 > 0)) for at, (image, mask) in enumerate(study(rng) for _ in range(30))]
    bad = withheld(volumes_statistics(volumes, expected=(0, 1, 2), plan=PLAN), PLAN)
    found = [one for one in findings({**clean, "site-2": bad}) if one.severity != "notice"]
    assert [(one.kind, one.sites) for one in found] == [("empty-masks", ("site-2",))]


@pytest.mark.parametrize("factor", [1.0, 1000.0, 0.25])
def test_the_same_patients_at_two_sites_are_found_in_whatever_scale(
    clean: dict[str, Statistics], factor: float
) -> None:
    rng = np.random.default_rng(1)  # those of site-1
    again = [scaled(factor)(seen(*study(rng))) for _ in range(8)]
    others = [seen(*study(np.random.default_rng(99 + at))) for at in range(20)]
    bad = withheld(volumes_statistics([*others, *again], expected=(0, 1, 2), plan=PLAN), PLAN)
    shared = [one for one in findings({**clean, "site-2": bad}) if one.kind == "same-examples"]
    assert [(one.sites, one.figure.split()[1]) for one in shared] == [(("site-1", "site-2"), "8")]


def test_a_folder_is_read_and_a_broken_study_counts_by_its_kind(tmp_path: Path) -> None:
    # given a folder with six good studies, one that is cut off and one without its label
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(8):
        image, mask = study(rng)
        affine = np.diag([-1.0, 1.0, 2.0, 1.0])  # to the left
        nibabel.save(nibabel.Nifti1Image(image, affine), tmp_path / "images" / f"p{number}.nii.gz")
        if number < 7:
            nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / "labels" / f"p{number}.nii.gz")
    broken = tmp_path / "images" / "p0.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    # when its statistics are computed
    found = folder_statistics(tmp_path, expected=(0, 1, 2), plan=PLAN)
    # then all are counted, and what is wrong by its kind
    assert found.examples == 8
    assert found.problems == {"truncated": 1, "no-label": 1}
    assert found.images is not None
    assert found.images.orientations == {"LAS": 7}
    assert [spread.median for spread in found.images.spacing] == [1.0, 1.0, 2.0]
    assert found.masks is not None
    assert {value: region.studies for value, region in found.masks.regions.items()} == {"1": 6, "2": 6}
    assert len(found.prints) == 7


def test_of_each_kind_that_is_wrong_the_log_names_the_first_and_counts_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(25):
        (tmp_path / f"images/{number}.nii.gz").touch()
    found = folder_statistics(tmp_path, expected=(0, 1), plan=PLAN)
    assert found.problems == {"no-label": 25, "truncated": 25}
    assert len(caplog.messages) == 2 * (20 + 1)
    assert "no-label: and 5 more" in caplog.messages


def test_a_folder_without_studies_is_a_problem_and_no_error(tmp_path: Path) -> None:
    assert folder_statistics(tmp_path, expected=(0, 1), plan=PLAN).problems == {"no-studies": 5}


def test_drawn_kidneys_with_a_tumour_on_either_side_have_nothing_found(tmp_path: Path) -> None:
    write_kidneys(tmp_path, studies=24)
    sites = {
        folder.name: withheld(folder_statistics(folder, expected=(0, 1, 2), plan=PLAN), PLAN)
        for folder in tmp_path.iterdir()
    }
    assert findings(sites) == ()
