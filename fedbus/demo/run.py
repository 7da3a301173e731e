"""`fedbus demo`: a real federation on this machine, trained from the first to the last version in half a minute.

    prepare   patients → one folder per hospital; a process computes the baselines meanwhile
    start     private RabbitMQ → aggregator and three hospitals, each a process
    play      submit the job → follow its events; at given versions one hospital joins, one leaves, comes back
    stop      every process, whatever happened → report, `--json`

With `--tls` the private RabbitMQ is the one of a federation that is provisioned for the demo: certificates log in over
TLS alone, everything is signed, updates and versions are sealed, and each hospital has a policy.

With FEDBUS_BROKER_URL=amqps://{login}:PASSWORD@HOST/VHOST, `{login}` and all, it uses that broker: one that has the
logins aggregator, submitter and the four hospitals, with the permissions of `broker.definitions` and one password.

Exit code 0; 1 with the reason; 130 after Ctrl-C, 143 after SIGTERM. Children are in sessions of their own, so a Ctrl-C
reaches this process alone; it ends them, and the kernel does should it be killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedbus.broker.environment import find_rabbitmq
from fedbus.demo.baselines import Baselines
from fedbus.demo.job import Cohort, demo_job, hand_out, job_text
from fedbus.demo.play import Play
from fedbus.demo.report import facts_of, report
from fedbus.demo.story import Story
from fedbus.demo.view import live, plain_lines
from fedbus.errors import FedbusError, NodeError, SettingsError
from fedbus.local.federation import LocalFederation
from fedbus.local.interrupts import Interrupted, Interrupts
from fedbus.runtime.logging import configure_logging
from fedbus.runtime.terminal import Terminal
from fedbus.tasks.heart_disease_data import HOSPITALS
from fedbus.web.beside import INSTALL, not_installed

LOGIN_MARK = "{login}"
# What the hospitals' policies let a job set in a demo over TLS.
ALLOWED = {"heart_disease": ("local.steps", "local.batch_size", "local.learning_rate")}

UrlFor = Callable[[str], str]


def run_demo(*, json_file: Path | None = None, keep: Path | None = None, tls: bool = False) -> int:
    """Run the demo and return its exit code. Raises FedbusError with the reason when something fails."""
    configure_logging("error")
    check_writable(json_file)
    url_for = broker_elsewhere(os.environ)
    if tls and url_for is not None:
        raise SettingsError("--tls makes a broker of its own: unset FEDBUS_BROKER_URL")
    console = Terminal()
    try:
        with Interrupts() as interrupts, workspace(keep) as folder:
            facts = _run(folder, console, interrupts, url_for, tls=tls)
    except Interrupted as exc:
        print(f"fedbus demo: stopped by {exc.signal.name}; all its processes have ended", file=sys.stderr)
        return exc.exit_code
    if json_file is not None:
        write_json(json_file, facts)
    console.print(report(facts))
    if keep is not None:
        console.print(f"kept in {keep}: job.yaml, data, logs, aggregator (ledger, checkpoints, exported model)")
    return 0


def _run(
    folder: Path, console: Terminal, interrupts: Interrupts, url_for: UrlFor | None, *, tls: bool
) -> dict[str, Any]:
    spec = demo_job()
    story = Story(prepare(folder), versions=spec.stop.versions or 0, tell=plain_lines(console))
    try:
        with live(story, console), Baselines(folder) as baselines:
            story.say(_which_broker(url_for, tls=tls))
            if not_installed():
                story.say(f"without the page that shows it in a browser: {INSTALL}")
            allowed = ALLOWED if tls else None
            with LocalFederation(folder, sites=HOSPITALS, url_for=url_for, tls=allowed) as federation:
                story.broker = "up"
                try:
                    interrupts.run(Play(federation, story, folder / "data").run(spec))
                finally:
                    interrupts.shut()
                    story.say("all processes are being stopped")
            return facts_of(story, baselines.result())
    finally:
        interrupts.shut()


def _which_broker(url_for: UrlFor | None, *, tls: bool) -> str:
    if url_for is not None:
        return "RabbitMQ runs elsewhere"
    if tls:
        return "the federation is provisioned, and its RabbitMQ starts: TLS and certificates alone"
    return "RabbitMQ starts, a private one for this demo"


def prepare(folder: Path) -> dict[str, Cohort]:
    """Write the job spec and every hospital's patients. Raises FedbusError."""
    try:
        (folder / "job.yaml").write_text(job_text(), encoding="utf-8")
        return hand_out(folder / "data")
    except OSError as exc:
        raise FedbusError(f"{folder} cannot be written: {exc.strerror}; give another place with --keep") from exc


def broker_elsewhere(environ: Mapping[str, str], find: Callable[[], Path] = find_rabbitmq) -> UrlFor | None:
    """How to find a login's URL when the broker is not ours to start. Raises NodeError when there is none at all."""
    template = environ.get("FEDBUS_BROKER_URL", "")
    if LOGIN_MARK in template:
        return lambda login: template.replace(LOGIN_MARK, login)
    try:
        find()
    except NodeError as exc:
        raise NodeError(
            "the demo starts a RabbitMQ of its own and finds none here: `apt-get install rabbitmq-server`; or set"
            f" FEDBUS_BROKER_URL=amqps://{LOGIN_MARK}:PASSWORD@HOST/VHOST, as it is written here, to a broker with the"
            f" logins aggregator, submitter, {', '.join(HOSPITALS)}"
        ) from exc
    return None


@contextlib.contextmanager
def workspace(keep: Path | None) -> Iterator[Path]:
    """A temporary folder, or `keep`, which must be new or empty. Raises SettingsError."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="fedbus-demo-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise SettingsError(f"--keep {keep}: the folder is not empty; give a new one")
    except OSError as exc:
        raise SettingsError(f"--keep {keep}: cannot be made: {exc.strerror}") from exc
    yield keep.absolute()


def check_writable(json_file: Path | None) -> None:
    """Find out before the training whether the facts can be written after it. Raises SettingsError."""
    if json_file is None:
        return
    if json_file.is_dir() or not os.access(json_file if json_file.exists() else json_file.absolute().parent, os.W_OK):
        raise SettingsError(f"--json {json_file}: cannot be written; give a file in a folder that exists")


def write_json(json_file: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts. Raises FedbusError."""
    try:
        json_file.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    except OSError as exc:
        raise FedbusError(f"--json {json_file}: cannot be written: {exc.strerror}") from exc
