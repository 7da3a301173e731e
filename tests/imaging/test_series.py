"""A folder of DICOM slices as one volume, and what is said of folders that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from fedbus.errors import StudyError
from fedbus.imaging.volumes import read_volume

SERIES = generate_uid()
VOXELS = np.random.default_rng(3).integers(0, 2000, (4, 5, 6)).astype(np.int16)  # columns, rows, slices


def write_slice(folder: Path, z: int, *, name: str = "", **changes: Any) -> Path:
    """Slice z of VOXELS, 2.5 mm above the one before; named so that names do not sort as places do."""
    folder.mkdir(exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / (name or f"{(z * 7) % 10}.dcm")
    found: Dataset = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    found.SOPClassUID, found.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    found.SeriesInstanceUID, found.PatientName = SERIES, "Doe^Jane"
    found.Columns, found.Rows, found.PixelSpacing = 4, 5, [0.5, 0.8]
    found.ImagePositionPatient, found.ImageOrientationPatient = [10, 20, 2.5 * z], [1, 0, 0, 0, 1, 0]
    found.BitsAllocated = found.BitsStored = 16
    found.HighBit, found.PixelRepresentation, found.SamplesPerPixel = 15, 1, 1
    found.PhotometricInterpretation, found.RescaleSlope, found.RescaleIntercept = "MONOCHROME2", 2, -1024
    found.PixelData = VOXELS[:, :, z].T.tobytes()
    for key, value in changes.items():
        setattr(found, key, value)
    found.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for z in range(6):
        write_slice(tmp_path / "ct", z)
    return tmp_path / "ct"


def kind_of(folder: Path) -> str:
    with pytest.raises(StudyError) as found:
        read_volume(folder)
    assert "ct" in str(found.value)
    return found.value.kind


def test_slices_are_sorted_by_place_and_rescaled(folder: Path) -> None:
    found = read_volume(folder)

    assert np.array_equal(found.array, VOXELS.astype(np.float32) * 2 - 1024)
    assert found.spacing == pytest.approx((0.8, 0.5, 2.5))
    assert found.orientation == "LPS"
    assert found.dtype == np.int16
    assert (found.affine @ [0, 0, 1, 1])[:3].tolist() == pytest.approx([-10, -20, 2.5])


def test_a_missing_slice_is_named_by_its_neighbours(folder: Path) -> None:
    (folder / "1.dcm").unlink()  # z = 3

    with pytest.raises(StudyError, match=r"4\.dcm and 8\.dcm lie 5\.00 mm.*a slice is missing") as found:
        read_volume(folder)

    assert found.value.kind == "missing-slice"


def test_a_slice_twice_is_told(folder: Path) -> None:
    write_slice(folder, 2, name="again.dcm")

    assert kind_of(folder) == "duplicate-slice"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"SeriesInstanceUID": generate_uid()}, "several-series"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "bad-geometry"),
        ({"PixelSpacing": [3, 3]}, "bad-geometry"),
        ({"ImagePositionPatient": None}, "unreadable"),
        ({"NumberOfFrames": 9}, "not-3d"),
    ],
)
def test_a_slice_that_does_not_belong_is_told(changes: dict[str, Any], kind: str, folder: Path) -> None:
    write_slice(folder, 5, name="5.dcm", **changes)

    assert kind_of(folder) == kind


def test_a_slice_cut_short_and_a_foreign_file_are_told(folder: Path) -> None:
    path = folder / "0.dcm"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert kind_of(folder) == "truncated"

    path.write_bytes(b"no DICOM")
    assert kind_of(folder) in ("unreadable", "truncated")


def test_a_folder_with_nothing_or_one_slice_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    assert kind_of(tmp_path / "ct") == "unreadable"

    write_slice(tmp_path / "ct", 0)
    assert kind_of(tmp_path / "ct") == "not-3d"
