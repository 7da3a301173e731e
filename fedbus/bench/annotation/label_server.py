"""A MONAI Label server and its folder as far as fedbus uses them, for tests and benchmarks, and small studies.

What it stands for is the server of release 0.8.5; `deploy/monailabel-check` runs the same loop against that one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import nibabel
import numpy as np

SHAPE = (8, 7, 6)
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class Server(Protocol):
    """What `served` puts on a port. cut_files: half of every body is sent."""

    cut_files: bool

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:
        """Answer one request."""


def write_image(path: Path, *, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Path:
    """Noise, in whole numbers."""
    return _write(path, np.random.default_rng(seed).integers(0, 900, shape).astype(np.int16))


def write_label(path: Path, *, size: int = 3, shape: tuple[int, ...] = SHAPE) -> Path:
    """A cube of ones of that size."""
    array = np.zeros(shape, dtype=np.uint8)
    array[:size, :size, :size] = 1
    return _write(path, array)


def _write(path: Path, array: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.5, 2.0, 1.0])), path)
    return path


class LabelFolder:
    """A MONAI Label server's folder of studies, as 0.8.5 lays it out, and what annotators do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.objects: dict[str, Any] = {}
        self._clock = 1_700_000_000
        self._save()

    def add_image(self, study: str, *, seed: int = 0) -> None:
        """A study of noise."""
        write_image(self.folder / f"{study}.nii.gz", seed=seed)
        self._know(study)

    def add_study(self, study: str, image: Path) -> None:
        """A study whose image is that file."""
        shutil.copyfile(image, self.folder / f"{study}.nii.gz")
        self._know(study)

    def submit_file(self, study: str, label: Path) -> None:
        """An annotator submits that file, which takes its place in one step."""
        place = self.label(study)
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}")
        shutil.copyfile(label, beside)
        beside.replace(place)
        self._note(study, "final")

    def _know(self, study: str) -> None:
        self.objects[study] = {"image": {"ext": ".nii.gz", "info": {"ts": self._clock}}, "labels": {}}
        self._save()

    def submit(self, study: str, *, size: int = 3, tag: str = "final", shape: tuple[int, ...] = SHAPE) -> None:
        """An annotator submits a label; the server notes the time."""
        self.write_label(study, size=size, tag=tag, shape=shape)
        self._note(study, tag)

    def _note(self, study: str, tag: str) -> None:
        self._clock += 1
        info = {"ts": self._clock, "client_id": "slicer", "label_info": [{"name": "organ"}]}
        self.objects[study]["labels"][tag] = {"ext": ".nii.gz", "info": info}
        self._save()

    def write_label(self, study: str, *, size: int, tag: str = "final", shape: tuple[int, ...] = SHAPE) -> None:
        """Somebody overwrites the file; the server's time of it does not move."""
        write_label(self.label(study, tag), size=size, shape=shape)

    def label(self, study: str, tag: str = "final") -> Path:
        return self.folder / "labels" / tag / f"{study}.nii.gz"

    def _save(self) -> None:
        content = {"name": "studies", "description": "", "objects": self.objects}
        beside = self.folder / ".datastore_v2.json"
        beside.write_text(json.dumps(content))
        beside.replace(self.folder / "datastore_v2.json")


class LabelServer:
    """The calls of MONAI Label's REST API that fedbus makes, on a folder. `requests`: method and path of each."""

    def __init__(self, studies: LabelFolder, *, token: str = "") -> None:
        self.studies = studies
        self.token = token
        self.models: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.cut_files = False
        self.redirect_to = ""

    def answer(self, method: str, target: str, headers: Any, body: bytes) -> Answer:  # noqa: PLR0911  a table of calls
        self.requests.append(f"{method} {target}")
        if self.redirect_to:
            return 307, {"Location": self.redirect_to}, b""
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {}, b"{}"
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match method, parts.path:
            case "GET", "/datastore/" if query.get("output") == "all":
                return self._json((self.studies.folder / "datastore_v2.json").read_bytes())
            case "GET", "/datastore/label":
                return self._file(self.studies.label(query["label"], query["tag"]))
            case "GET", "/datastore/image":
                return self._file(self.studies.folder / f"{query['image']}.nii.gz")
            case "PUT", path if path.startswith("/model/"):
                return self._put_model(path.removeprefix("/model/"), headers, body)
        return 404, {}, b"{}"

    def _put_model(self, name: str, headers: Any, body: bytes) -> Answer:
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(head + body)
        part = next(part for part in form.iter_parts() if part.get_param("name", header="Content-Disposition"))
        sent = part.get_payload(decode=True)
        self.models[name] = sent if isinstance(sent, bytes) else b""
        checksum = hashlib.sha256(self.models[name]).hexdigest()
        return self._json(json.dumps({"checksum": f"SHA256:{checksum}"}).encode())

    def _json(self, body: bytes) -> Answer:
        return 200, {"Content-Type": "application/json"}, body

    def _file(self, path: Path) -> Answer:
        if not path.exists():
            return 404, {}, b"{}"
        body, stat = path.read_bytes(), path.stat()
        etag = hashlib.md5(f"{stat.st_mtime_ns}-{stat.st_size}".encode(), usedforsecurity=False).hexdigest()
        return 200, {"ETag": f'"{etag}"', "Content-Length": str(len(body))}, body


@contextmanager
def served(server: Server) -> Iterator[str]:
    """Serve what has `answer` over HTTP on loopback, and yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = server.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(answer))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer[: len(answer) // 2] if server.cut_files else answer)

        do_GET = do_PUT = do_POST = _any  # noqa: N815  names of the standard library

        def log_message(self, format: str, *args: Any) -> None:
            return None

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
