"""From settings to a page that answers: alone as `fedbus web`, or beside a daemon in its process.

Stop order: whoever looks is let go, open requests have STOP_S, then the link to the broker is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn

from fedbus.console.settings import SubmitterSettings
from fedbus.errors import SettingsError
from fedbus.web.app import Served, make_app
from fedbus.web.auth import Door, Keys
from fedbus.web.beside import READY
from fedbus.web.feed import Feed
from fedbus.web.settings import WebSettings
from fedbus.web.source import Answers

BACKLOG = 512
STOP_S = 1
MOST_CONNECTIONS = 2_000

log = structlog.get_logger()


class Page:
    """A page whose address is taken: whoever opens it now is answered as soon as `run` runs. Raises SettingsError."""

    def __init__(self, settings: WebSettings, submitter: SubmitterSettings) -> None:
        self._settings = settings
        self._submitter = submitter
        self._token = settings.token()
        self._check_files()
        submitter.identity()
        self._socket = _bound(settings)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        host, port = self._socket.getsockname()[:2]
        scheme = "http" if self._settings.tls_cert is None else "https"
        name = self._settings.host if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/"

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def announce(self) -> None:
        """Say in the log where it is."""
        log.info(READY, address=self.address, text=f"open {self.address}")

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until `stop`."""
        feed = Feed(self._submitter)
        async with asyncio.TaskGroup() as group:
            answers = Answers(feed, group)
            server = _Server(self._config(self._served(feed, answers)))
            feeding = group.create_task(feed.run(), name="page: feed")
            serving = group.create_task(server.serve(sockets=[self._socket]), name="page: server")
            await stop.wait()
            feed.close()
            server.should_exit = True
            await asyncio.wait([serving])
            answers.close()
            feeding.cancel()

    def _served(self, feed: Feed, answers: Answers) -> Served:
        return Served(
            feed=feed,
            answers=answers,
            door=Door(self._settings, Keys(self._token)),
            read_only=self._settings.read_only,
            secure=self._settings.tls_cert is not None,
            cookie=f"fedbus-{self.port}",
            docs=self._settings.docs,
        )

    def _config(self, served: Served) -> uvicorn.Config:
        return uvicorn.Config(
            make_app(served),
            log_config=None,
            access_log=False,
            proxy_headers=False,  # whom a header is believed from is decided in `auth`
            server_header=False,
            lifespan="off",
            ws="none",
            http="h11",
            backlog=BACKLOG,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=STOP_S,
            ssl_certfile=self._settings.tls_cert,
            ssl_keyfile=self._settings.tls_key,
        )

    def _check_files(self) -> None:
        for name in ("tls_cert", "tls_key"):
            path: Path | None = getattr(self._settings, name)
            try:
                if path is not None:
                    path.read_bytes()
            except OSError as exc:
                raise SettingsError(f"{name} {path}: cannot be read: {exc.strerror}") from exc


class _Server(uvicorn.Server):
    """Signals are those of the process that it runs in."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bound(settings: WebSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(place)
            made.listen(BACKLOG)
        except OSError:
            made.close()
            raise
    except OSError as exc:
        raise SettingsError(
            f"the page cannot have {settings.host} port {settings.port}: {exc.strerror or exc}; give another --port,"
            " or 0 for a free one"
        ) from exc
    made.setblocking(False)
    return made
