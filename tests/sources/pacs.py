"""A CT series and a DICOM-SEG of it, made by pydicom and highdicom, as a PACS would hold them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS, SLICES = 16, 12, 5


def ct_series() -> list[Dataset]:
    """Slices from foot to head; the value of a voxel is 100 z + 10 y + x."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    return [_slice(number, study=study, series=series, frame=frame) for number in range(SLICES)]


def segmentation(ct: list[Dataset], *, size: int, description: str = "kidney FINAL", time: str = "120000") -> Dataset:
    """A cube of segment 1 at the first voxels, and one voxel of segment 2 in the last slice."""
    mask = np.zeros((len(ct), ROWS, COLUMNS), dtype=np.uint8)
    mask[:size, :size, :size] = 1
    mask[-1, -1, -1] = 2
    algorithm = AlgorithmIdentificationSequence(name="by hand", version="1", family=codes.DCM.ArtificialIntelligence)
    described = [
        SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Kidney,
            algorithm_type=SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in ((1, "kidney"), (2, "tumour"))
    ]
    seg = Segmentation(
        source_images=ct,
        pixel_array=mask,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="fedbus",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        series_description=description,
    )
    seg.ContentTime = time
    return seg


def as_file(dataset: Dataset) -> bytes:
    """The bytes of a DICOM file."""
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _slice(number: int, *, study: str, series: str, frame: str) -> Dataset:
    z, y, x = number, *np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    fields: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "FrameOfReferenceUID": frame,
        "Modality": "CT",
        "PatientName": "Doe^Jane",
        "PatientID": "4711",
        "PatientBirthDate": "19500101",
        "PatientSex": "F",
        "StudyID": "1",
        "StudyDate": "20260101",
        "StudyTime": "100000",
        "AccessionNumber": "1",
        "ReferringPhysicianName": "",
        "SeriesNumber": 1,
        "InstanceNumber": number + 1,
        "ImagePositionPatient": [-10.0, -20.0, 30.0 + 3.0 * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.75, 0.5],
        "SliceThickness": 3.0,
        "Rows": ROWS,
        "Columns": COLUMNS,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "PixelData": (100 * z + 10 * y + x).astype(np.int16).tobytes(),
    }
    dataset = Dataset()
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset
