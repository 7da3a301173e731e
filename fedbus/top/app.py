"""The application: one screen with both tables, and what every screen shares: the connection, the clocks, the answers.

    main screen   Enter → a job or a site, Esc ← back        / filter   s, S sort   a abort   ? help   q quit

Answers are asked for by one task, however many screens are open. A screen that draws reads `overview`.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from fedbus.core.protocol.messages import JobState
from fedbus.errors import FedbusError
from fedbus.top.asked import Asked, Connect, Overview
from fedbus.top.main import MainScreen
from fedbus.top.questions import Help, Question

ASK_EVERY_S = 2.0
ENDS = (signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130
ENDED = frozenset(str(state) for state in JobState if state.ended)


class Top(App[int]):
    """Run it with `run_async`; its result is the exit code. `error`: why it had to end, after that."""

    ENABLE_COMMAND_PALETTE = False
    CSS_PATH = "top.tcss"
    TITLE = "fedbus top"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave(0)", "quit"),
        Binding("ctrl+c", f"leave({INTERRUPTED})", "quit", show=False, priority=True),
        Binding("ctrl+q", "leave(0)", "quit", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
    ]

    def __init__(
        self,
        connect: Connect,
        *,
        every_s: float = ASK_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """clock: what answers are timed by, in seconds. now: seconds since the epoch."""
        super().__init__()
        self._connect, self.every_s = connect, every_s
        self.clock, self.now = clock, now
        self.overview = Overview()
        self.asked: Asked | None = None
        self.error: Exception | None = None
        self._begun: set[asyncio.Task[None]] = set()

    def get_default_screen(self) -> MainScreen:
        return MainScreen(self.overview)

    def on_mount(self) -> None:
        for number in ENDS:
            asyncio.get_running_loop().add_signal_handler(number, self.exit, 128 + number)
        self._asking = self.begin(self._ask(), name="ask")

    async def on_unmount(self) -> None:
        """Close the connection before the event loop goes: cut off in the middle, its library would never end."""
        for task in (*(task for task in self._begun if task is not self._asking), self._asking):
            task.cancel()
            await asyncio.wait({task})

    def begin(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Start a task that is ended before the connection is. An error that it does not expect ends all of it."""
        task = asyncio.create_task(work, name=name)
        self._begun.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._begun.discard(task)
        if not task.cancelled() and isinstance(exc := task.exception(), Exception):
            self.error = exc
            self.exit(1)

    async def _ask(self) -> None:
        """Connect, and ask until the end."""
        async with self._connect() as asked:
            asked.stay()
            self.asked = asked
            while True:
                await self.overview.ask(asked, self.clock)
                await asyncio.sleep(self.every_s)

    def trouble(self) -> str:
        """Why nothing new is heard; empty while all is well."""
        fresh = self.overview.fresh
        fresh.connected = self.asked is not None and self.asked.connected
        return fresh.trouble(self.clock())

    def action_leave(self, code: int) -> None:
        self.exit(code)

    def action_help(self) -> None:
        if not isinstance(self.screen, Help | Question):
            self.push_screen(Help())

    def abort(self, job: str) -> None:
        """Ask whether a job is to be aborted, and abort it."""
        line = self.overview.job(job)
        if line is not None and line.state in ENDED:
            self.notify(f"{job} has ended: {line.state}", severity="warning", markup=False)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.begin(self._abort(job), name="abort")

        words = "It ends for all its sites; what it has learnt so far is exported. It cannot be taken up again."
        self.push_screen(Question(f"Abort {job}?", words), answered)

    async def _abort(self, job: str) -> None:
        try:
            if self.asked is None or not self.asked.connected:
                raise FedbusError("not aborted: there is no link to the broker")
            await self.asked.abort(job, None)
        except FedbusError as exc:
            self.notify(str(exc), title=f"abort {job}", severity="error", markup=False)
        else:
            self.notify(f"{job} is being aborted", markup=False)
            if self.asked is not None:
                await self.overview.ask(self.asked, self.clock)
