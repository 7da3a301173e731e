"""A PACS that does not behave: a server without paging, and series that it does not give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from fedbus.errors import SourceError
from fedbus.sources.dicomweb import CONTENT_LABEL, PAGE, REFERENCED, SERIES, STUDY, DicomWeb
from fedbus.sources.source import Item

from .pacs import ct_series, segmentation


class Client:
    """The calls of a `DICOMwebClient` that are made. `refused`: a SEG series without metadata here."""

    def __init__(self, series: int, *, refused: str = "") -> None:
        self.series = [f"1.{number}" for number in range(series)]
        self.refused = refused
        self.searches = 0
        self.seg = segmentation(ct_series(), size=2)

    def search_for_series(self, *, search_filters: Any, limit: int, offset: int) -> list[dict[str, Any]]:
        self.searches += 1  # the whole list each time, whatever is asked for
        return [{STUDY: {"Value": ["1"]}, SERIES: {"Value": [uid]}} for uid in self.series]

    def retrieve_series_metadata(self, study: str, series: str) -> list[dict[str, Any]]:
        if series == self.refused:
            raise ValueError(series)
        image = {SERIES: {"Value": [f"2.{series}"]}}
        return [{CONTENT_LABEL: {"Value": ["FINAL"]}, REFERENCED: {"Value": [image]}}]

    def iter_series(self, study: str, series: str) -> Iterator[Dataset]:
        yield self.seg


def source(client: Client, *, most_bytes: int = 1 << 30) -> DicomWeb:
    return DicomWeb(client, most_bytes=most_bytes, word="final")


def test_a_server_that_knows_no_pages_is_asked_twice() -> None:
    client = Client(PAGE + 1)
    assert len(list(source(client).list({}))) == PAGE + 1
    assert client.searches == 2


def test_a_series_that_is_not_given_costs_no_other(tmp_path: Path) -> None:
    found = source(Client(3, refused="1.1"))
    items: list[Item] = []
    for item in found.list({}):
        items.append(item)
        if item.id == "1.1":
            with pytest.raises(SourceError, match="no DICOM"):
                found.materialise(item, tmp_path)
    assert [item.id for item in items if item.sha256] == ["2.1.0", "2.1.2"]
    assert len(items) == 3


def test_a_mask_that_is_too_large_is_called_so(tmp_path: Path) -> None:
    found = source(Client(1), most_bytes=10)
    (item,) = found.list({})
    with pytest.raises(SourceError) as why:
        found.materialise(item, tmp_path)
    assert why.value.kind == "too-large"
