"""The data source of a site, polled by a child process for each pass: what hangs, leaks or crashes there stops nothing.

A child that takes longer than `pass_limit_s` is killed; what it had placed until then stays. The site's log says a
trouble once, and once that it is over; the site goes on with the data it has. Nothing of this leaves the site.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from fedbus.errors import StoreError
from fedbus.runtime.cage import Cage
from fedbus.site.cage import child_environment
from fedbus.site.labels import Labels
from fedbus.sources.settings import SourceSettings

MOST_REMEMBERED = 1000
LAST_WORDS_BYTES = 4000
PUBLISH_LIMIT_S = 600.0

log = structlog.get_logger()


class SourceWatch:
    """`state` is a folder of its own."""

    def __init__(
        self,
        settings: SourceSettings,
        *,
        data: Path,
        state: Path,
        labels: Labels,
        cage: Cage | None = None,
    ) -> None:
        self._cage = cage
        self._settings = settings
        self._data = data
        self._state = state
        self._labels = labels
        self._said: set[tuple[str, str]] = set()
        self._trouble = ""
        self._publishing = asyncio.Lock()

    async def run(self, on_new: Callable[[], Awaitable[None]]) -> None:
        """Poll for ever; `on_new` is awaited when labels came."""
        while True:
            if await self._poll():
                await on_new()
            await asyncio.sleep(self._settings.poll_s)

    async def publish(self, artifact: Path) -> bool:
        """Give a model back; whether that was done."""
        async with self._publishing:
            limit_s = min(self._settings.pass_limit_s, PUBLISH_LIMIT_S)
            said = await self._child("publish", limit_s=limit_s, artifact=str(artifact))
        if "done" not in said:
            log.warning("model-not-handed-back", kind=said.get("failed"), text=said.get("text"))
            return False
        log.info("model-handed-back", text=said["done"])
        return True

    async def _poll(self) -> bool:
        """Whether labels came."""
        said = await self._child("poll", limit_s=self._settings.pass_limit_s)
        if "failed" in said:
            self._is_troubled(str(said["failed"]), str(said.get("text")))
        else:
            self._is_well()
        try:
            new = self._labels.refresh()
        except StoreError as exc:
            self._is_troubled("StoreError", str(exc))
            return False
        if new:
            log.info("labels-came", found=said.get("found"))
        return bool(new)

    def _say_once(self, kind: str, text: str) -> None:
        if (kind, text) in self._said:
            return
        if len(self._said) >= MOST_REMEMBERED:
            self._said.clear()
        self._said.add((kind, text))
        log.warning("source-study", kind=kind, text=text)

    def _is_troubled(self, kind: str, text: str) -> None:
        if self._trouble != kind:
            next_s = self._settings.poll_s
            log.warning("source-trouble", kind=kind, text=text, next_s=next_s, goes_on="with the data that is here")
        self._trouble = kind

    def _is_well(self) -> None:
        if self._trouble:
            log.info("source-back", after=self._trouble)
        self._trouble = ""

    async def _child(self, what: str, *, limit_s: float, **more: str) -> dict[str, Any]:
        """What a child says at last: {"failed": …} when it does not end well by itself."""
        order = {"what": what, "settings": self._settings.model_dump(mode="json"), **more}
        order |= {"data": str(self._data), "state": str(self._state)}
        try:
            process = await _spawned(self._cage)
        except OSError as exc:
            return {"failed": "no-process", "text": f"no process can be started for the source: {exc.strerror}"}
        words = asyncio.create_task(_last_words(process), name=f"words of source child {process.pid}")
        said: dict[str, Any] = {}
        try:
            async with asyncio.timeout(limit_s):
                said = await self._talk(process, order)
                await process.wait()
        except TimeoutError:
            said = {"failed": "too-slow", "text": f"the source was not through after {limit_s:g} s"}
        finally:
            _kill(process)
            await process.wait()
            last = await words
        if not said:
            log.warning("source-child", exit_code=process.returncode, last_words=last)
            return {"failed": "crashed", "text": f"the process for the source ended with code {process.returncode}"}
        return said

    async def _talk(self, process: asyncio.subprocess.Process, order: Any) -> dict[str, Any]:
        """Tell a child what to do and log what it notes; what it says besides, {} when it says nothing."""
        last: dict[str, Any] = {}
        if process.stdin is None or process.stdout is None:
            return last
        with suppress(ConnectionError):
            process.stdin.write(json.dumps(order).encode())
            await process.stdin.drain()
        process.stdin.close()
        with suppress(ValueError, RecursionError):  # no JSON or no line: how the process ended says the rest
            async for line in process.stdout:
                match json.loads(line):
                    case {"note": kind, "text": text}:
                        self._say_once(str(kind), str(text))
                    case dict(said):
                        last = said
        return last


async def _spawned(cage: Cage | None) -> asyncio.subprocess.Process:
    # -P: modules of the folder that the daemon was started in are not imported
    command = [sys.executable, "-P", "-m", "fedbus.sources"]
    return await asyncio.create_subprocess_exec(
        *(command if cage is None else cage.around(command)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(),  # the site's login at the broker is no business of a source
        start_new_session=True,
    )


async def _last_words(process: asyncio.subprocess.Process) -> str:
    found = b""
    while process.stderr is not None and (piece := await process.stderr.read(1 << 16)):
        found = (found + piece)[-LAST_WORDS_BYTES:]
    return found.decode(errors="replace")


def _kill(process: asyncio.subprocess.Process) -> None:
    """With all that it has started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
