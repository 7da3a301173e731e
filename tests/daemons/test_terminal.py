"""A real federation seen from a terminal: `fedbus watch` on a pty, `fedbus top`, and Tab in a real bash."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from fedbus.console.client import Client
from fedbus.console.settings import SubmitterSettings
from fedbus.top.app import Top
from fedbus.top.main import MainScreen
from fedbus.top.opened import JobScreen

from .conftest import SOON, House

ALTERNATE, BACK, CURSOR, NO_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h", "\x1b[?25l"
PROGRAM = Path(sys.executable).with_name("fedbus")


@dataclass(slots=True)
class OnTerminal:
    """A process on a terminal of 80 x 24, and all that it has written there."""

    process: subprocess.Popen[bytes]
    fd: int
    written: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        return self.written.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, seen: Callable[[str], bool]) -> str:
        """Read until what was written is like that."""
        end = time.monotonic() + SOON.total_seconds()
        while not seen(self.text):
            assert time.monotonic() < end, self.text[-2000:]
            assert self._read() or seen(self.text), self.text[-2000:]
        return self.text

    def ended(self) -> int:
        """Read to its end, and return its exit code."""
        while self._read():
            pass
        return self.process.wait(SOON.total_seconds())

    def _read(self) -> bool:
        """Read what there is; False when the other end is closed."""
        if select.select([self.fd], [], [], SOON.total_seconds())[0]:
            try:
                self.written += os.read(self.fd, 65536)
            except OSError:
                return False
        return True


@contextmanager
def on_terminal(*command: str | Path, **env: str) -> Iterator[OnTerminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    own = {"TERM": "xterm-256color", "HOME": env.get("FEDBUS_HOME", "/nonexistent")}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, **own, **env}, start_new_session=True
    )
    os.close(slave)
    try:
        yield OnTerminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


async def settled(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        while not condition():
            await pilot.pause(0.05)


async def look_and_abort(house: House, job: str) -> None:
    """What somebody does in `fedbus top`: open the job, see the aggregator go and come, abort."""
    settings = SubmitterSettings.load(broker_url=house.running.url("submitter"), timeout_s=SOON.total_seconds())
    app = Top(lambda: Client(settings), every_s=0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, lambda: app.overview.job(job) is not None and app.overview.site("site-a") is not None)
        assert isinstance(app.screen, MainScreen)
        app.screen.draw()
        await pilot.press("enter")
        opened = app.screen
        assert isinstance(opened, JobScreen)
        await settled(pilot, lambda: opened.watched.picture.version >= 1)
        assert [row.state for row in opened.watched.rows()] == ["here"]
        house.kill(house.aggregator)
        await settled(pilot, lambda: "does not answer" in app.trouble())
        assert app.overview.job(job) is not None
        house.start_aggregator()
        await settled(pilot, lambda: app.trouble() == "")
        await pilot.press("escape", "a", "y")
        await settled(pilot, lambda: [line.state for line in app.overview.jobs if line.job == job] == ["aborted"])
        await pilot.press("q")
    assert app.return_value == 0


def test_a_job_is_seen_from_a_terminal_over_the_death_of_the_aggregator(manned_house: House) -> None:
    # given a job that goes on for long
    house = manned_house
    house.start_site("site-a", status_interval_s=0.5)
    endless = {"task_config": {"numel": 64, "step_s": 0.05}, "stop": {"versions": 9000}}
    job = house.submit(name="seen", **endless)
    env = {"FEDBUS_BROKER_URL": house.running.url("submitter"), "FEDBUS_HOME": str(house.folder / "home")}

    # when it is watched without colours, and Ctrl-C is pressed
    with on_terminal(PROGRAM, "watch", job, NO_COLOR="1", **env) as watch:
        watch.until(lambda text: "of 9000" in text and "site-a" in text)
        watch.process.send_signal(signal.SIGINT)
        # then the terminal is as it was, but for the last picture, and the exit code says so
        assert watch.ended() == 130
        assert watch.text.count(ALTERNATE) == watch.text.count(BACK) == 1
        last = watch.text.partition(BACK)[2]
        assert watch.text.rindex(CURSOR) > watch.text.rindex(NO_CURSOR)
        assert job in last
        assert "\x1b[3" not in watch.text
        assert "Traceback" not in watch.text

    # when it is watched while somebody else looks at it in the table, and aborts it there
    with on_terminal(PROGRAM, "watch", job, **env) as watch:
        watch.until(lambda text: "of 9000" in text)
        asyncio.run(look_and_abort(house, job))
        # then who watches has seen it too
        assert watch.ended() == 1
        assert "the aggregator does not answer" in watch.text
        assert "aborted" in watch.text.partition(BACK)[2]

    # when its name is completed in a shell
    assert job in house.fedbus("jobs").out
    with on_terminal("bash", "--norc", "-i", PATH=f"{PROGRAM.parent}:{os.environ['PATH']}", PS1="$ ", **env) as shell:
        shell.type('eval "$(fedbus --show-completion bash)"; complete -p fedbus\n')
        shell.until(lambda text: "-F _fedbus_completion fedbus" in text.partition("complete -p fedbus")[2])
        shell.type("fedbus show seen-\t")
        # then it is there whole
        shell.until(lambda text: f"fedbus show {job}" in text)
