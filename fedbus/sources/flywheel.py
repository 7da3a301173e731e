"""A Flywheel project as a source, through the public flywheel-sdk. No live Flywheel was ever contacted by its tests.

In each acquisition of the project the NIfTI file with the tag (`label_tag`) is the label, the one without it the image.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator, Mapping
from math import ceil
from pathlib import Path
from typing import Any

from fedbus.errors import MissingPackageError, SourceError
from fedbus.sources.source import MOST_ITEMS, Files, Item, Known, nifti_ending, sha256_of
from fedbus.store.files import is_full


def open_flywheel(key: str, *, project: str, tag: str, timeout_s: float, most_bytes: int, scratch: Path) -> Flywheel:
    """Log in and find the project by its label. Raises SourceError, MissingPackageError."""
    # read when the SDK is imported; left alone it tries for two minutes, and the next pass tries again anyway
    os.environ["FLYWHEEL_SDK_TOTAL_RETRIES"] = "1"
    os.environ["FLYWHEEL_SDK_CONNECT_TIMEOUT"] = os.environ["FLYWHEEL_SDK_REQUEST_TIMEOUT"] = str(ceil(timeout_s))
    try:
        import flywheel
    except ImportError as exc:
        raise MissingPackageError("a source of kind flywheel", extra="flywheel", why=exc) from exc
    client = asked(lambda: flywheel.Client(key))
    found = asked(lambda: client.projects.find_one(f"label={project}"))
    return Flywheel(client, found.id, tag=tag, most_bytes=most_bytes, scratch=scratch)


class Flywheel:
    """See `DataSource`. `client` is a `flywheel.Client`, `project` the id of a project."""

    def __init__(self, client: Any, project: str, *, tag: str, most_bytes: int, scratch: Path) -> None:
        self._client = client
        self._project = project
        self._tag = tag
        self._most_bytes = most_bytes
        self._label = scratch / "listed-label"
        self._listed: tuple[str, Any, Any] | None = None

    def list(self, known: Mapping[str, Known]) -> Iterator[Item]:
        for number, found in enumerate(self._acquisitions()):
            image, label = self._pair(found.files or [])
            if label is None or image is None or number >= MOST_ITEMS:
                yield Item(id=found.id, labelled=False)
                continue
            self._listed = found.id, image, label
            mark, before = f"{label.file_id}:{label.version}:{label.size}", known.get(found.id)
            if before is not None and before.mark == mark:
                yield Item(id=found.id, labelled=True, sha256=before.sha256, mark=mark)
                continue
            sha256 = self._fetched(found.id, label, self._label)
            yield Item(id=found.id, labelled=True, sha256=sha256, mark=mark)

    def materialise(self, item: Item, folder: Path) -> Files:
        if self._listed is None or self._listed[0] != item.id:
            raise SourceError("another acquisition was listed meanwhile", kind="unreadable")
        _, image, label = self._listed
        files = Files(
            image=folder / f"image{nifti_ending(image.name)}", label=folder / f"label{nifti_ending(label.name)}"
        )
        if item.sha256:
            self._label.replace(files.label)
        else:
            self._save(item.id, label, files.label)
        self._save(item.id, image, files.image)
        return files

    def publish(self, artifact: Path) -> str:
        asked(lambda: self._client.upload_file_to_project(self._project, str(artifact)))
        return f"{artifact.name} is a file of the Flywheel project"

    def _acquisitions(self) -> Iterator[Any]:
        found = asked(lambda: iter(self._client.acquisitions.iter_find(f"parents.project={self._project}")))
        while (one := asked(lambda: next(found, None))) is not None:
            yield one

    def _pair(self, files: Any) -> tuple[Any, Any]:
        """Image and label of an acquisition; None for one that is not there."""
        image = label = None
        for file in sorted((file for file in files if _is_nifti(file.name)), key=lambda file: str(file.name)):
            if self._tag in (file.tags or ()):
                label = label or file
            else:
                image = image or file
        return image, label

    def _fetched(self, acquisition: str, file: Any, to: Path) -> str:
        """The sha256 of what was fetched; "" when it could not be: `materialise` says why."""
        try:
            self._save(acquisition, file, to)
        except SourceError as exc:
            if exc.kind == "unreachable":
                raise
            return ""
        return sha256_of(to)

    def _save(self, acquisition: str, file: Any, to: Path) -> None:
        if (file.size or 0) > self._most_bytes:
            raise SourceError(
                f"{file.name} has {file.size} bytes, at most {self._most_bytes} are read", kind="too-large"
            )
        asked(lambda: self._client.download_file_from_acquisition(acquisition, file.name, str(to)))
        size = to.stat().st_size if to.exists() else 0
        if file.size is not None and size != file.size:
            raise SourceError(f"{size} of {file.size} bytes of {file.name} came", kind="truncated")


def asked(question: Any) -> Any:
    """The answer; whatever the SDK raises is a SourceError."""
    import flywheel

    try:
        return question()
    except flywheel.ApiException as exc:
        raise SourceError(f"Flywheel answered with status {exc.status}", kind="refused") from exc
    except ValueError as exc:
        raise SourceError(f"Flywheel has no such thing: {exc}", kind="refused") from exc
    except (OSError, http.client.HTTPException) as exc:
        if is_full(exc):  # the SDK writes a file to the site's own disk
            raise
        raise SourceError(f"Flywheel cannot be reached: {exc}", kind="unreachable") from exc
    except Exception as exc:
        raise SourceError(f"Flywheel cannot be used ({type(exc).__name__}: {exc})"[:400], kind="unreachable") from exc


def _is_nifti(name: str) -> bool:
    return str(name).lower().endswith((".nii", ".nii.gz"))
