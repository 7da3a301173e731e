"""A PACS as a source: QIDO-RS and WADO-RS. A label is a DICOM-SEG series that refers to the image series.

A SEG series counts when its Series Description or its Content Label has the approving word in it (`label_tag`), and of
several for one image series the newest. Segment numbers become label values. Image and label are put on one grid and
written as NIfTI, without any of the headers: names, dates and numbers of patients stay in the PACS.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedbus.errors import MissingPackageError, SourceError
from fedbus.imaging.series import LPS_TO_RAS, MOST_SLICES, read_series
from fedbus.imaging.volumes import Volume
from fedbus.sources.source import MOST_ITEMS, Files, Item, Known

PAGE: Final = 200
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
DESCRIPTION, CONTENT_LABEL, REFERENCED = "0008103E", "00700080", "00081115"
DATE, TIME = "00080023", "00080033"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seg:
    """A SEG series as its metadata say. `made`: date, time and instance, which sort as text."""

    study: str
    series: str
    image: str
    made: tuple[str, str, str]
    mark: str


def open_dicomweb(url: str, *, token: str, timeout_s: float, most_bytes: int, word: str) -> DicomWeb:
    """Open a server. Raises MissingPackageError when the extra is not installed."""
    try:
        import highdicom  # noqa: F401
        import requests
        from dicomweb_client import DICOMwebClient
    except ImportError as exc:
        raise MissingPackageError("a source of kind dicomweb", extra="dicomweb", why=exc) from exc
    session = requests.Session()
    session.trust_env = False  # no proxy, no .netrc
    session.max_redirects = 0  # a token is for the server that was named
    headers = {"Authorization": f"Bearer {token}"} if token else None
    client = DICOMwebClient(url=url, session=session, headers=headers, timeout=timeout_s)
    client.set_http_retry_params(retry=False)
    return DicomWeb(client, most_bytes=most_bytes, word=word)


class DicomWeb:
    """See `DataSource`. `client` is a `dicomweb_client.DICOMwebClient`."""

    def __init__(self, client: Any, *, most_bytes: int, word: str) -> None:
        self._client = client
        self._most_bytes = most_bytes
        self._word = word.lower()
        self._listed: tuple[_Seg, bytes] | None = None
        self._failed: dict[str, SourceError] = {}
        """Why what was listed cannot be read, by its id."""

    def list(self, known: Mapping[str, Known]) -> Iterator[Item]:
        newest = self._newest()
        for series in sorted(self._failed):
            yield Item(id=series, labelled=True)
        for image, seg in sorted(newest.items()):
            before = known.get(image)
            if before is not None and before.mark == seg.mark:
                yield Item(id=image, labelled=True, sha256=before.sha256, mark=seg.mark)
                continue
            self._listed, sha256 = None, ""
            try:
                body = self._one_instance(seg)
            except SourceError as exc:
                if exc.kind == "unreachable":
                    raise
                self._failed[image] = exc
            else:
                self._listed, sha256 = (seg, body), hashlib.sha256(body).hexdigest()
            yield Item(id=image, labelled=True, sha256=sha256, mark=seg.mark)

    def materialise(self, item: Item, folder: Path) -> Files:
        if item.id in self._failed:
            raise self._failed[item.id]
        if self._listed is None or self._listed[0].image != item.id:
            raise SourceError("another series was listed meanwhile", kind="unreadable")
        seg, body = self._listed
        slices = folder / "series"
        slices.mkdir()
        self._save_series(seg, slices)
        image = read_series(slices)
        label = on_grid(body, image)
        files = Files(image=folder / "image.nii.gz", label=folder / "label.nii.gz")
        _write(image.array, image, files.image)
        _write(label, image, files.label)
        return files

    def publish(self, artifact: Path) -> str:
        raise SourceError("a DICOMweb server takes no model back", kind="no-model")

    def _newest(self) -> dict[str, _Seg]:
        """The newest SEG series of each image series; one that is not given is noted, and costs no other."""
        found: dict[str, _Seg] = {}
        for study, series in self._series():
            try:
                seg = self._described(study, series)
            except SourceError as exc:
                if exc.kind == "unreachable":
                    raise
                self._failed[series] = exc
                continue
            if seg is not None and (seg.image not in found or found[seg.image].made < seg.made):
                found[seg.image] = seg
        return found

    def _series(self) -> Iterator[tuple[str, str]]:
        seen: set[tuple[str, str]] = set()
        for offset in range(0, MOST_ITEMS, PAGE):
            page = _asked(
                lambda offset=offset: self._client.search_for_series(
                    search_filters={"Modality": "SEG"}, limit=PAGE, offset=offset
                )
            )
            new = {(_text(entry, STUDY), _text(entry, SERIES)) for entry in page} - seen
            yield from sorted(new)
            if len(page) < PAGE or not new:  # a server without paging gives the same again
                return
            seen |= new

    def _described(self, study: str, series: str) -> _Seg | None:
        """What the metadata say; None for what is not approved, or refers to no series."""
        metadata = _asked(lambda: self._client.retrieve_series_metadata(study, series))
        if not metadata:
            return None
        first = metadata[0]
        words = f"{_text(first, DESCRIPTION)} {_text(first, CONTENT_LABEL)}".lower()
        image = _text(_first(first, REFERENCED), SERIES)
        if self._word not in words or not image:
            return None
        return _Seg(
            study=study,
            series=series,
            image=image,
            made=(_text(first, DATE), _text(first, TIME), _text(first, INSTANCE)),
            mark=hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest(),
        )

    def _one_instance(self, seg: _Seg) -> bytes:
        found: tuple[bytes, ...] = _asked(lambda: self._bounded(seg.study, seg.series))
        if len(found) != 1:
            raise SourceError(f"a SEG series of {len(found)} instances; one was expected", kind="unreadable")
        return found[0]

    def _save_series(self, seg: _Seg, folder: Path) -> None:
        for number, body in enumerate(_asked(lambda: self._bounded(seg.study, seg.image))):
            (folder / f"{number:05}.dcm").write_bytes(body)

    def _bounded(self, study: str, series: str) -> tuple[bytes, ...]:
        """The instances of a series as files, as many as may come."""
        found: tuple[bytes, ...] = ()
        size = 0
        for dataset in self._client.iter_series(study, series):
            out = io.BytesIO()
            dataset.save_as(out, enforce_file_format=True)
            size += out.tell()
            if size > self._most_bytes or len(found) >= MOST_SLICES:
                raise SourceError(f"a series of more than {self._most_bytes} bytes", kind="too-large")
            found = (*found, out.getvalue())
        return found


def on_grid(seg: bytes, image: Volume) -> NDArray[np.uint16]:
    """The segments of a DICOM-SEG file as label values on the voxels of an image.

    Raises SourceError when segments overlap, or lie on other voxels.
    """
    import highdicom
    from pydicom import dcmread

    try:
        parsed = highdicom.seg.Segmentation.from_dataset(dcmread(io.BytesIO(seg)))
        labels = parsed.get_volume(combine_segments=True, allow_missing_positions=True)
        grid = highdicom.VolumeGeometry(
            LPS_TO_RAS @ image.affine, spatial_shape=image.array.shape, coordinate_system="PATIENT"
        )
        return np.asarray(labels.match_geometry(grid).array).astype(np.uint16)
    except Exception as exc:
        text = f"its DICOM-SEG cannot be put on the voxels of its image ({type(exc).__name__}: {exc})"
        raise SourceError(text[:400], kind="shape-mismatch") from exc


def _write(array: NDArray[Any], like: Volume, path: Path) -> None:
    import nibabel

    whole = np.issubdtype(array.dtype, np.integer) or (
        np.abs(array).max(initial=0) < 2**15 and bool((array == np.round(array)).all())
    )
    stored = array.astype(np.int16) if whole else array.astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(stored, like.affine), path)


def _asked(question: Any) -> Any:
    """The answer of the server; whatever its client raises is a SourceError."""
    import requests

    try:
        return question()
    except SourceError:
        raise
    except requests.HTTPError as exc:
        status = "no status" if exc.response is None else f"status {exc.response.status_code}"
        raise SourceError(f"the DICOMweb server answered with {status}", kind="refused") from exc
    except (requests.RequestException, OSError) as exc:
        raise SourceError(f"the DICOMweb server cannot be reached: {exc}", kind="unreachable") from exc
    except Exception as exc:
        raise SourceError(
            f"the DICOMweb server sent what is no DICOM ({type(exc).__name__})", kind="unreadable"
        ) from exc


def _first(entry: Any, tag: str) -> Any:
    value = entry.get(tag) if isinstance(entry, dict) else None
    values = value.get("Value") if isinstance(value, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _text(entry: Any, tag: str) -> str:
    value = _first(entry, tag)
    return value if isinstance(value, str) else ""
