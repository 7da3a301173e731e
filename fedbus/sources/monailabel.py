"""A MONAI Label server as a source: over HTTP, or in its folder of studies. It is a peer, never a dependency.

A label counts once a radiologist has submitted it, which is the tag `final`. The server's time of a label does not move
when its file is overwritten, so what tells a new label is its content; an ETag or the file's stat tells that nothing
was written at all, and then nothing is read.

    GET /datastore/?output=all                 what there is (the same JSON as datastore_v2.json in its folder)
    GET /datastore/label?label=ID&tag=final    a label          GET /datastore/image?image=ID    its image
    PUT /model/NAME                            a model; the answer holds the checksum of what the server has stored
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from fedbus.errors import SourceError
from fedbus.sources import disk, web
from fedbus.sources.source import MOST_ITEMS, Files, Item, Known, nifti_ending, sha256_of

FINAL = "final"
LISTING = "datastore_v2.json"


class Store(Protocol):
    """Where the server's studies are reached: its API, or its disk. `study`: an id and the file's ending."""

    def listing(self) -> Any:
        """Return the JSON of all that there is."""

    def mark(self, study: str, ending: str) -> str:
        """What tells that a final label was not written since; "" when nothing does."""

    def label(self, study: str, ending: str, to: Path) -> None:
        """Copy a final label."""

    def image(self, study: str, ending: str, to: Path) -> None:
        """Copy an image."""


class OverHttp:
    """The server's API."""

    def __init__(self, server: web.Web) -> None:
        self._server = server

    def listing(self) -> Any:
        return self._server.json("/datastore/?output=all")

    def mark(self, study: str, ending: str) -> str:
        with self._server.file(self._label(study)) as headers:
            return headers.get("etag", headers.get("ETag", ""))

    def label(self, study: str, ending: str, to: Path) -> None:
        self._server.save(self._label(study), to)

    def image(self, study: str, ending: str, to: Path) -> None:
        self._server.save(f"/datastore/image?{urlencode({'image': study})}", to)

    @staticmethod
    def _label(study: str) -> str:
        # an id with half a character in it is asked for all the same: no server has it, and the intake says why
        return f"/datastore/label?{urlencode({'label': study, 'tag': FINAL}, errors='surrogatepass')}"


class OnDisk:
    """The server's folder of studies. Files elsewhere are not read, whatever the listing names them."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def listing(self) -> Any:
        return web.parsed(disk.read_bounded(self._folder / LISTING, web.MOST_JSON_BYTES), where=LISTING)

    def mark(self, study: str, ending: str) -> str:
        return disk.mark_of(self._file("labels", FINAL, study + ending))

    def label(self, study: str, ending: str, to: Path) -> None:
        disk.copy(self._file("labels", FINAL, study + ending), to, most_bytes=self._most_bytes)

    def image(self, study: str, ending: str, to: Path) -> None:
        disk.copy(self._file(study + ending), to, most_bytes=self._most_bytes)

    def _file(self, *parts: str) -> Path:
        return disk.inside(self._folder, *parts)


class MonaiLabel:
    """See `DataSource`. `scratch` holds the label that was listed last; `model` of `server` is what is replaced."""

    def __init__(self, store: Store, *, scratch: Path, server: web.Web | None = None, model: str | None = None) -> None:
        self._store = store
        self._scratch = scratch
        self._server = server
        self._model = model
        self._endings: dict[str, tuple[str, str]] = {}

    def list(self, known: Mapping[str, Known]) -> Iterator[Item]:
        """One whose label cannot be read is yielded without a sha256: `materialise` says why."""
        self._endings = self._finals()
        for study, (_, label_ending) in self._endings.items():
            yield self._item(study, label_ending, known.get(study))

    def materialise(self, item: Item, folder: Path) -> Files:
        image_ending, label_ending = self._endings[item.id]
        image = folder / f"image{nifti_ending(image_ending)}"
        label = folder / f"label{nifti_ending(label_ending)}"
        if not item.sha256:  # it could not be fetched a moment ago; now the error is said
            self._store.label(item.id, label_ending, label)
        else:
            self._label_file.replace(label)
        self._store.image(item.id, image_ending, image)
        return Files(image=image, label=label)

    def publish(self, artifact: Path) -> str:
        if self._server is None or self._model is None:
            raise SourceError("no model of a MONAI Label server is named: set model", kind="no-model")
        answer = self._server.put_file(f"/model/{quote(self._model)}", artifact, field="file", name="model.pt")
        stored = answer.get("checksum") if isinstance(answer, dict) else None
        if stored != web.checksum(artifact):
            raise SourceError(f"the server stored another model {self._model} than it was given", kind="not-stored")
        return f"model {self._model} of the MONAI Label server was replaced"

    @property
    def _label_file(self) -> Path:
        return self._scratch / "listed-label"

    def _item(self, study: str, ending: str, before: Known | None) -> Item:
        try:
            mark = self._store.mark(study, ending)
            if before is not None and mark and mark == before.mark:
                sha256 = before.sha256
            else:
                self._store.label(study, ending, self._label_file)
                sha256 = sha256_of(self._label_file)
        except SourceError as exc:
            if exc.kind == "unreachable":
                raise
            return Item(id=study, labelled=True)
        return Item(id=study, labelled=True, sha256=sha256, mark=mark)

    def _finals(self) -> dict[str, tuple[str, str]]:
        """Endings of image and label of all studies with a final label."""
        listing = self._store.listing()
        objects = listing.get("objects") if isinstance(listing, dict) else None
        if not isinstance(objects, dict):
            raise SourceError("expected MONAI Label's datastore, a JSON object with objects", kind="not-json")
        if len(objects) > MOST_ITEMS:
            raise SourceError(f"{len(objects)} studies, at most {MOST_ITEMS} are read", kind="too-large")
        found = {}
        for study, entry in sorted(objects.items()):
            label, image = _at(entry, "labels", FINAL), _at(entry, "image")
            if isinstance(label, dict) and isinstance(image, dict):
                found[study] = str(image.get("ext", "")), str(label.get("ext", ""))
        return found


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
