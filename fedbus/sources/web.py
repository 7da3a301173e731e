"""HTTP as a hospital's server may need to be spoken to: bounded in time and size, no proxy, no redirect."""

from __future__ import annotations

import hashlib
import http.client
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedbus.errors import SourceError
from fedbus.sources.source import PIECE_BYTES
from fedbus.store.files import is_full

MOST_JSON_BYTES = 64 << 20
_TROUBLES = (urllib.error.URLError, http.client.HTTPException, OSError, ValueError)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token is for the server that was named, not for wherever that one points."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Web:
    """One server. `token`: sent as bearer token; "" sends none."""

    def __init__(self, url: str, *, token: str = "", timeout_s: float, most_bytes: int) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def json(self, path: str) -> Any:
        """GET a JSON value; SourceError when none comes."""
        with self._answer("GET", path) as answer:
            body = answer.read(MOST_JSON_BYTES + 1)
        if len(body) > MOST_JSON_BYTES:
            raise SourceError(f"{self._url}: an answer of more than {MOST_JSON_BYTES} bytes", kind="too-large")
        return parsed(body, where=self._url)

    @contextmanager
    def file(self, path: str) -> Iterator[Mapping[str, str]]:
        """GET a file and yield the headers; nothing of the body is read."""
        with self._answer("GET", path) as answer:
            yield dict(answer.headers)

    def save(self, path: str, to: Path) -> None:
        """GET a file and write it; SourceError when it is too large or ends early."""
        with self._answer("GET", path) as answer, to.open("wb") as file:
            expected, size = answer.headers.get("Content-Length"), 0
            while piece := answer.read(PIECE_BYTES):
                size += len(piece)
                if size > self._most_bytes:
                    raise SourceError(f"{self._url}: a file of more than {self._most_bytes} bytes", kind="too-large")
                file.write(piece)
        if expected is not None and expected.isdigit() and int(expected) != size:
            raise SourceError(f"{self._url}: {size} of {expected} bytes of a file came", kind="truncated")

    def put_file(self, path: str, file: Path, *, field: str, name: str) -> Any:
        """PUT a file as multipart form and return the JSON of the answer."""
        boundary = secrets.token_hex(16)
        disposition = f'form-data; name="{field}"; filename="{name}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        content = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        with self._answer("PUT", path, body=body, headers=content) as answer:
            return parsed(answer.read(MOST_JSON_BYTES), where=self._url)

    @contextmanager
    def _answer(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[Any]:
        request = urllib.request.Request(  # noqa: S310  the settings allow http and https only
            self._url + path, data=body, method=method, headers={**self._headers, **(headers or {})}
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                yield answer
        except urllib.error.HTTPError as exc:
            exc.close()
            raise SourceError(f"{self._url}: {method} was answered with status {exc.code}", kind="refused") from exc
        except _TROUBLES as exc:
            if is_full(exc):  # what is read here is written to the site's own disk
                raise
            words = getattr(exc, "reason", None) or exc
            raise SourceError(f"{self._url} cannot be reached: {words}", kind="unreachable") from exc


def parsed(body: bytes, *, where: str) -> Any:
    """The JSON value of these bytes; SourceError when they are none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise SourceError(f"{where}: expected JSON, got {len(body)} bytes that are none", kind="not-json") from exc


def checksum(path: Path) -> str:
    """As MONAI Label tells it."""
    with path.open("rb") as file:
        return f"SHA256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
