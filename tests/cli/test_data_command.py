"""`fedbus data`: folders of three sites to try segmentation with."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import nibabel
import numpy as np

from fedbus.imaging.studies import find_studies
from fedbus.imaging.volumes import read_study


def fedbus(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("fedbus")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def test_kidneys_are_written_as_three_sites_that_can_be_read(tmp_path: Path) -> None:
    done = fedbus("data", "kidneys", "--to", tmp_path, "--studies", 2)

    assert done.stdout.splitlines() == [f"{tmp_path / site}  2 studies" for site in ("site-a", "site-b", "site-c")]
    for site in ("site-a", "site-b", "site-c"):
        (one, _) = find_studies(tmp_path / site).labelled
        image, label = read_study(one)
        assert image.array.shape == label.array.shape
        assert np.unique(label.array).tolist() == [0, 1, 2]


def test_the_hippocampus_archive_is_shared_by_stored_scale(tmp_path: Path) -> None:
    archive = tmp_path / "task04.tgz"
    scales = {"a": np.uint8(200), "b": np.float32(4000), "c": np.float32(2e5), "unlabelled": np.uint8(3)}
    with tarfile.open(archive, "w:gz") as tar:
        for name, value in scales.items():
            for part in ("images", "labels")[: 1 if name == "unlabelled" else 2]:
                data = gzip.compress(nibabel.Nifti1Image(np.full((3, 3, 3), value), np.eye(4)).to_bytes())
                member = tarfile.TarInfo(f"./{part}/hippocampus_{name}.nii.gz")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        tar.addfile(tarfile.TarInfo("../images/outside.nii.gz"))

    done = fedbus("data", "hippocampus", archive, "--to", tmp_path / "data")

    assert done.stdout.splitlines() == [f"{tmp_path / 'data' / site}  1 studies" for site in ("low", "uint8", "high")]
    found = find_studies(tmp_path / "data" / "low")
    assert (found.layout, [study.id for study in found.labelled]) == ("msd", ["hippocampus_b"])
    assert found.labels == {0: "background", 1: "anterior", 2: "posterior"}
    assert not list((tmp_path / "data").glob("*.part*"))


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(b"no archive")

    done = fedbus("data", "hippocampus", tmp_path / "a.tgz", "--to", tmp_path / "data")

    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot be read as a tar archive" in done.stderr
