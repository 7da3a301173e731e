"""Many site daemons in one process, each with a trainer that only waits: `python -m fedbus.bench.stub_sites FILE`.

The site daemons are the real ones (three connections each, control queue, outbox, model files). A stub trainer takes
about as long as a real one might and then answers with an update that was prepared once for all, so that nothing here
imports torch. FILE is a StubPlan as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from fedbus.broker.logins import write_private
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.runtime.lifecycle import run_daemon
from fedbus.runtime.logging import configure_logging
from fedbus.site.daemon import open_site
from fedbus.site.settings import SiteSettings
from fedbus.site.trainer_errors import TrainerDiedError
from fedbus.training import protocol as p


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedUpdate:
    """An encoded delta that every training of a stub comes to, and params for a job to start from."""

    frames: str
    frame_sizes: tuple[int, ...]
    initial: str
    initial_sizes: tuple[int, ...]
    numel: int

    @property
    def layout(self) -> Layout:
        """One tensor of `numel` elements."""
        return Layout.of([TensorSpec(name="w", shape=(self.numel,), dtype="float32")])


@dataclass(frozen=True, slots=True, kw_only=True)
class StubPlan:
    """What one process is to run: broker URLs by site, and trainings of `train_s` seconds, half more or less."""

    urls: dict[str, str] = field(repr=False)
    folder: str
    update: PreparedUpdate
    train_s: float
    status_interval_s: float = 10.0

    def write(self, path: Path) -> None:
        """Nobody else may read it: there are passwords in the URLs."""
        write_private(path, json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        content = json.loads(path.read_text())
        update = content.pop("update")
        for sizes in ("frame_sizes", "initial_sizes"):
            update[sizes] = tuple(update[sizes])
        return cls(update=PreparedUpdate(**update), **content)


class StubTrainer:
    """A trainer that trains nothing."""

    def __init__(self, update: PreparedUpdate, *, train_s: float, draw: random.Random) -> None:
        self.pid = os.getpid()
        self._update = update
        self._train_s = train_s
        self._draw = draw
        self._version = -1
        self._cancelled = asyncio.Event()

    async def ask(self, command: p.Command) -> p.Reply:
        """Answer as a trainer does."""
        match command:
            case p.Open():
                layout = self._update.layout
                return p.Opened(device="stub", layout_digest=layout.digest, numel=layout.numel)
            case p.MakeInitial(path=path):
                os.link(self._update.initial, path)
                layout = self._update.layout
                return p.Made(layout=layout.to_dict(), frame_sizes=self._update.initial_sizes, digest=layout.digest)
            case p.Load(version=version):
                self._version = version
                return p.Loaded(version=version)
            case p.Train(path=path):
                return await self._train(Path(path))
            case p.Score(version=version):
                return p.Scored(version=version, metrics={"loss": 1.0}, num_examples=1)
        raise TrainerDiedError(f"a stub trainer does not answer {type(command).__name__}")

    async def cancel(self) -> None:
        """End a training that runs."""
        self._cancelled.set()

    async def _train(self, path: Path) -> p.Trained | p.Cancelled:
        self._cancelled.clear()
        seconds = self._train_s * self._draw.uniform(0.5, 1.5)
        try:
            async with asyncio.timeout(seconds):
                await self._cancelled.wait()
        except TimeoutError:
            os.link(self._update.frames, path)  # the outbox reads it and unlinks it, as it would a file of its own
            sizes = self._update.frame_sizes
            return p.Trained(
                base_version=self._version, frame_sizes=sizes, effort=Effort(num_examples=1, steps=1, seconds=seconds)
            )
        return p.Cancelled(base_version=self._version, steps=0)


async def run_sites(plan: StubPlan, stop: asyncio.Event) -> None:
    """Run all sites of the plan until `stop` is set."""
    async with asyncio.TaskGroup() as group:
        for name, url in plan.urls.items():
            group.create_task(_run_site(plan, name, url, stop), name=name)


async def _run_site(plan: StubPlan, name: str, url: str, stop: asyncio.Event) -> None:
    settings = SiteSettings(
        broker_url=SecretStr(url),
        site_name=name,
        site_data=Path(plan.folder),
        site_state_dir=Path(plan.folder) / name,
        status_interval_s=plan.status_interval_s,
    )
    draw = random.Random(name)

    @asynccontextmanager
    async def start(on_progress: Callable[[p.Progress], None], *, threads: int) -> AsyncIterator[StubTrainer]:
        yield StubTrainer(plan.update, train_s=plan.train_s, draw=draw)

    async with open_site(settings, start=start) as site:
        await site.run(stop)


def main() -> int:
    configure_logging("info", "json")
    plan = StubPlan.read(Path(sys.argv[1]))
    return run_daemon(lambda stop: run_sites(plan, stop))


if __name__ == "__main__":
    sys.exit(main())
