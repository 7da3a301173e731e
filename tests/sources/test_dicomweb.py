"""A PACS as a source: a real Orthanc on loopback, with a CT series and corrected masks as DICOM-SEG."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset

from fedbus.errors import SourceError
from fedbus.local.federation import wait_until
from fedbus.sources.intake import Found, Intake
from fedbus.sources.journal import JournalFile
from fedbus.sources.run import make_source
from fedbus.sources.settings import SourceSettings

from .pacs import COLUMNS, ROWS, SLICES, as_file, ct_series, segmentation

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PROGRAM = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
LOGIN, PASSWORD = "fedbus", "pacs"

pytestmark = pytest.mark.skipif(
    PROGRAM is None or not PLUGIN.exists(), reason="no Orthanc here: sudo apt-get install orthanc orthanc-dicomweb"
)


@dataclass(frozen=True, slots=True)
class Pacs:
    """A running Orthanc."""

    url: str

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"))
        try:
            connection.request(method, path, body)
            return connection.getresponse().read()
        finally:
            connection.close()

    def store(self, *instances: Dataset) -> None:
        for instance in instances:
            self.ask("POST", "/instances", as_file(instance))

    def empty(self) -> None:
        for patient in json.loads(self.ask("GET", "/patients")):
            self.ask("DELETE", f"/patients/{patient}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def running_pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    """One Orthanc for the tests of this process; it keeps nothing but its folder here."""
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    settings = {
        "Name": "fedbus",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": port,
        "DicomPort": free_port(),
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(PROGRAM), str(folder / "orthanc.json")], stdout=log, stderr=log)
    pacs = Pacs(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        try:
            return bool(pacs.ask("GET", "/system"))
        except (http.client.HTTPException, OSError):
            return False

    try:
        wait_until(answers, within=timedelta(seconds=30), what="Orthanc", or_else=(folder / "log").read_text)
        yield pacs
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def pacs(running_pacs: Pacs) -> Pacs:
    running_pacs.empty()
    return running_pacs


def poll(pacs: Pacs, site: Path, **settings: object) -> Found:
    scratch = site / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    found = SourceSettings.model_validate({"kind": "dicomweb", "url": f"{pacs.url}/dicom-web", **settings})
    intake = Intake(
        make_source(found, scratch=scratch),
        data=site / "data",
        scratch=scratch,
        journal=JournalFile(site / "state"),
        note=lambda kind, text: None,
    )
    return intake.run()


def arrays(site: Path) -> tuple[nibabel.Nifti1Image, nibabel.Nifti1Image]:
    (image,), (label,) = ((site / "data" / name).iterdir() for name in ("images", "labels"))
    return nibabel.load(image), nibabel.load(label)


def test_series_and_mask_arrive_on_one_grid(pacs: Pacs, tmp_path: Path) -> None:
    ct = ct_series()
    pacs.store(*reversed(ct), segmentation(ct, size=3))
    assert poll(pacs, tmp_path) == Found(new=1, labelled=1)
    image, label = arrays(tmp_path)
    x, y, z = np.meshgrid(*map(np.arange, (COLUMNS, ROWS, SLICES)), indexing="ij")
    assert np.array_equal(image.get_fdata(), 100 * z + 10 * y + x)
    expected = np.zeros((COLUMNS, ROWS, SLICES))
    expected[:3, :3, :3] = 1
    expected[-1, -1, -1] = 2
    assert np.array_equal(label.get_fdata(), expected)
    # DICOM leads to the left and the back, NIfTI to the right and the front
    assert np.allclose(image.affine, [[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
    assert np.allclose(image.affine, label.affine)


def test_only_approved_masks_count_and_the_newest_wins(pacs: Pacs, tmp_path: Path) -> None:
    ct = ct_series()
    pacs.store(*ct, segmentation(ct, size=2, description="proposal"))
    assert poll(pacs, tmp_path) == Found()
    pacs.store(segmentation(ct, size=3, time="130000"))
    assert poll(pacs, tmp_path).new == 1
    assert poll(pacs, tmp_path).new == 0
    pacs.store(segmentation(ct, size=1, time="110000"))
    assert poll(pacs, tmp_path).new == 0
    pacs.store(segmentation(ct, size=4, time="140000"))
    assert poll(pacs, tmp_path) == Found(new=1, labelled=1)
    assert (arrays(tmp_path)[1].get_fdata() == 1).sum() == 64


def test_a_series_with_a_missing_slice_stays_out_and_others_come(pacs: Pacs, tmp_path: Path) -> None:
    broken, whole = ct_series(), ct_series()
    pacs.store(*broken[:2], *broken[3:], segmentation(broken, size=2), *whole, segmentation(whole, size=2))
    found = poll(pacs, tmp_path)
    assert (found.new, dict(found.problems)) == (1, {"missing-slice": 1})


def test_nothing_of_the_patient_is_in_the_files(pacs: Pacs, tmp_path: Path) -> None:
    ct = ct_series()
    pacs.store(*ct, segmentation(ct, size=2))
    poll(pacs, tmp_path)
    for image in arrays(tmp_path):
        assert b"Doe" not in image.header.binaryblock
        assert len(image.header.extensions) == 0


def test_a_series_larger_than_allowed_stays_out(pacs: Pacs, tmp_path: Path) -> None:
    ct = ct_series()
    for one in ct:
        one.ImageComments = "x" * 8000
        one.PixelData = one.PixelData
        one.add_new(0x00091010, "OB", b"\0" * 400_000)
    pacs.store(*ct, segmentation(ct, size=2))
    assert dict(poll(pacs, tmp_path, most_file_mib=1).problems) == {"too-large": 1}


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as found:
        poll(Pacs("http://127.0.0.1:9"), tmp_path)
    assert found.value.kind == "unreachable"
