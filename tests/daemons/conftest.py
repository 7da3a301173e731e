"""What daemon tests share: a federation of real processes on a fresh virtual host, job specs, the command line.

Nothing here sleeps for a fixed time: a test waits for a log line or for an answer, with a generous limit.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedbus.console.client import Client
from fedbus.console.settings import SubmitterSettings
from fedbus.core.protocol.answers import as_json
from fedbus.core.rules.facts import Committed, Fact, Folded
from fedbus.core.spec.training import TrainingSpec
from fedbus.local.federation import Daemon, LocalFederation, wait_until
from fedbus.store.ledger import Ledger
from fedbus.tasks.heart_disease import write_site_data
from tests.other_processes import children, ended
from tests.waits import SOON

from .sealed_run import SealedRun, sealed_run

TOO_LATE = ("the job is finishing", "the job is finished")
QUICK_STATUS = {"status_interval_s": 0.5}  # a lease of 1.5 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(slots=True, kw_only=True)
class House:
    """A federation of real processes in `folder`, and what a person does with it."""

    folder: Path
    running: LocalFederation
    aggregator: Daemon = field(init=False)
    waits: Mapping[str, object] = field(default_factory=lambda: {"settle_s": 0.05, "quiet_s": 0.3})
    """What a test need not wait for, for nobody kills the broker that all tests share."""

    def start_aggregator(self, **settings: object) -> Daemon:
        self.aggregator = self.running.start_aggregator(**self.waits | settings)
        return self.aggregator

    def start_site(self, name: str, *, data: Path | None = None, **settings: object) -> Daemon:
        """Start a site; its data are Cleveland's patients, or Hungary's for the site of that name."""
        if data is None:
            data = self.folder / "data" / name
            write_site_data(data, "hungary" if name == "hungary" else "cleveland")
        return self.running.start_site(name, data, **settings)

    def kill(self, daemon: Daemon) -> None:
        """SIGKILL, without a word to anybody."""
        daemon.stop(timedelta(0))

    # what submitters do

    def ask(self, question: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
        """Ask with a client of its own."""

        async def asking() -> Any:
            settings = SubmitterSettings.load(
                broker_url=self.running.url("submitter"),
                kit=self.running.kit("submitter"),
                timeout_s=SOON.total_seconds(),
            )
            async with Client(settings) as client:
                return await question(client)

        return asyncio.run(asking())

    def spec(self, **keys: Any) -> dict[str, Any]:
        """A tiny job; `keys` replace what stands here. Its task starts faster than those that need an optimizer."""
        return {
            "name": "test",
            "task": "synthetic",
            "task_config": {"numel": 64},
            "local": {"steps": 2, "batch_size": 32, "learning_rate": 0.05, "evaluate": False},
            "stop": {"versions": 3},
        } | keys

    def submit(self, **keys: Any) -> str:
        """Submit such a job and return its id."""
        spec = TrainingSpec.parse(self.spec(**keys))
        return str(self.ask(lambda client: client.submit(spec)))

    def job(self, job: str) -> dict[str, Any]:
        detail: dict[str, Any] = as_json(self.ask(lambda client: client.job(job)))
        return detail

    def site(self, name: str) -> dict[str, Any]:
        return next(as_json(s) for s in self.ask(lambda client: client.sites()) if s.site == name)

    def fedbus(self, *arguments: str, url: str | None = None, stdin: str = "", **env: object) -> Said:
        """The command `fedbus` as a process, run to its end; as submitter unless `url` is given.

        env: settings by their names, such as timeout_s, and variables as they are, such as COLUMNS.
        """
        program = Path(sys.executable).with_name("fedbus")
        settings = {"FEDBUS_BROKER_URL": url or self.running.url("submitter"), "FEDBUS_HOME": str(self.folder / "home")}
        settings["FEDBUS_TIMEOUT_S"] = str(SOON.total_seconds())
        if (kit := self.running.kit("submitter")) is not None:
            settings["FEDBUS_KIT"] = str(kit)
        settings |= {key if key.isupper() else f"FEDBUS_{key.upper()}": str(value) for key, value in env.items()}
        done = subprocess.run(
            [program, *arguments],
            env={**os.environ, **settings},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * SOON.total_seconds(),
            check=False,
        )
        return Said(code=done.returncode, out=done.stdout, err=done.stderr)

    # what is waited for, and what is left on disk

    def ended(self, job: str, *, state: str = "finished") -> dict[str, Any]:
        """Wait until the job has ended like that."""
        return self.aggregator.wait_for("job-ended", within=2 * SOON, job=job, state=state)

    def committed(self, version: int) -> dict[str, Any]:
        return self.aggregator.wait_for("version-committed", version=version)

    def facts(self, job: str) -> list[Fact]:
        """Everything that was decided, from the ledger."""
        with Ledger(self.folder / "aggregator" / "ledger.sqlite3") as ledger:
            return [row.fact for row in ledger.facts(job)]

    def model_log(self, job: str) -> str:
        """The name of the job's model log, which only its sites are told."""
        with Ledger(self.folder / "aggregator" / "ledger.sqlite3") as ledger:
            name = ledger.model_log(job)
            assert name is not None
            return name

    def folded(self, job: str) -> list[Folded]:
        return [fact for fact in self.facts(job) if isinstance(fact, Folded)]

    def versions(self, job: str) -> list[Committed]:
        return [fact for fact in self.facts(job) if isinstance(fact, Committed)]

    def refused_in_time(self, job: str) -> list[str]:
        """Why updates were refused, but for those that came when the job needed no more: sites train to the end."""
        events = [event for daemon in self.running.daemons for event in daemon.events() if event.get("job") == job]
        reasons = [str(event["reason"]) for event in events if event["event"] == "update-refused"]
        return [reason for reason in reasons if reason not in TOO_LATE]

    # processes

    def trainers(self, daemon: Daemon) -> list[psutil.Process]:
        """Trainer processes of a site daemon; each is the child of a guardian."""
        guardians = psutil.Process(daemon.pid).children()
        return [trainer for guardian in guardians for trainer in children(guardian)[:1]]

    def wait_gone(self, process: psutil.Process) -> None:
        """Wait until a process has ended; a zombie has."""
        wait_until(lambda: ended(process), within=SOON, what=f"the end of process {process.pid}")

    def exit_code(self, daemon: Daemon, *, within: timedelta = SOON) -> int:
        """Wait until a daemon has ended and return its exit code."""

        def waited() -> tuple[int, int] | None:
            pid, status = os.waitpid(daemon.pid, os.WNOHANG)
            return (pid, status) if pid else None

        _, status = wait_until(waited, within=within, what=f"the end of {daemon.name}", or_else=daemon.last_words)
        return os.waitstatus_to_exitcode(status)

    def terminate(self, daemon: Daemon) -> int:
        """SIGTERM; the exit code."""
        os.kill(daemon.pid, signal.SIGTERM)
        return self.exit_code(daemon)

    def stop_all(self) -> dict[str, int]:
        """SIGTERM to all at once; the exit codes of those that still ran."""
        daemons = [d for d in self.running.daemons if d.alive]
        for daemon in daemons:
            os.kill(daemon.pid, signal.SIGCONT)
            os.kill(daemon.pid, signal.SIGTERM)
        return {daemon.name: self.exit_code(daemon) for daemon in daemons}


@contextmanager
def open_house(folder: Path, vhost: Any) -> Iterator[House]:
    with LocalFederation(folder, url_for=vhost.url, kit_for=getattr(vhost, "kit", lambda login: None)) as running:
        house = House(folder=folder, running=running)
        yield house
        assert set(house.stop_all().values()) <= {0}


@pytest.fixture
def make_house() -> Callable[[LocalFederation], House]:
    """A house around a federation that the test has opened, such as one with a broker of its own."""
    return lambda running: House(folder=running.folder, running=running, waits={})


@pytest.fixture
def house(tmp_path: Path, vhost: Any) -> Iterator[House]:
    """A federation without any daemon yet, on a fresh virtual host; every daemon must end by SIGTERM with code 0."""
    with open_house(tmp_path / "fed", vhost) as house:
        yield house


@pytest.fixture
def sealed_house(tmp_path: Path, provisioned: Any) -> Iterator[House]:
    """The same on the node where certificates log in: everything is signed, updates and versions are sealed."""
    with open_house(tmp_path / "fed", provisioned) as house:
        yield house


@pytest.fixture(scope="module")
def manned_house(tmp_path_factory: pytest.TempPathFactory, fresh_vhost: Callable[[], Any]) -> Iterator[House]:
    """A federation with an aggregator, shared by tests that only ask it something."""
    with open_house(tmp_path_factory.mktemp("manned") / "fed", fresh_vhost()) as house:
        house.start_aggregator()
        house.aggregator.wait_for("aggregator-ready")
        yield house


@pytest.fixture(scope="session")
def after_sealed_run(
    tmp_path_factory: pytest.TempPathFactory, fresh_provisioned: Callable[[], Any]
) -> Iterator[SealedRun]:
    """What a whole job has left on the node where certificates log in; its daemons have ended."""
    federation = fresh_provisioned()
    with open_house(tmp_path_factory.mktemp("sealed-run") / "fed", federation) as house:
        yield sealed_run(house, federation)
