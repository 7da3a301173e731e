"""`fedbus.connect`: what a person does in a notebook, on a real broker; errors are ours, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import fedbus
from fedbus.bench.chaos.proxy import Proxy
from fedbus.core.protocol.answers import VersionLine
from fedbus.errors import ConnectionLostError, FedbusError, JobSpecError, SettingsError, UnreachableError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy/docs/notebook.md"
PATIENT = {"FEDBUS_TIMEOUT_S": "60"}
HEAVY = ("torch", "aio_pika", "pandas", "cryptography", "pydantic")


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **PATIENT, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_day_at_the_notebook(house: Any, tmp_path: Path) -> None:
    """The cells of the page are run as they stand, in a process where an event loop runs, as in Jupyter."""
    house.start_aggregator().wait_for("aggregator-ready")
    for site in ("site-a", "site-b"):
        house.start_site(site)
        house.aggregator.wait_for("site-joined", site=site)
    cells = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(cells) >= 2
    assert sum(len(cell.splitlines()) for cell in cells) <= 30
    program = "\n".join(
        [
            "import asyncio, threading",
            "loop = asyncio.new_event_loop()",
            "async def notebook():",
            *("    " + line for cell in cells for line in cell.splitlines()),
            "    print('columns', *curve.columns)",
            "    print('threads', [t.name for t in threading.enumerate()])",
            "loop.run_until_complete(notebook())",
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FEDBUS_BROKER_URL": house.running.url("submitter"), "PYTHONPATH": str(ROOT), **PATIENT},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "columns at seconds updates contributors" in done.stdout
    assert "threads ['MainThread']" in done.stdout
    assert "version-committed" in done.stdout
    assert (tmp_path / "model.safetensors").stat().st_size > 100
    assert "broker connected" not in done.stdout

    _errors_are_ours(house)
    _two_threads_ask(house)
    _a_fork_is_told(house)
    _a_connection_that_nobody_closed(house)
    _without_pandas(house)


def _errors_are_ours(house: Any) -> None:
    url = house.running.url("submitter")
    with pytest.raises(SettingsError):
        fedbus.connect("nonsense")
    with pytest.raises(UnreachableError):
        fedbus.connect("amqp://submitter:secret@127.0.0.1:9/none", timeout_s=0.5)
    with pytest.raises(FedbusError):
        fedbus.connect(url.replace("submitter:", "submitter:wrong"), timeout_s=2)
    with fedbus.connect(url) as federation:
        with pytest.raises(JobSpecError, match=r"local\.steps"):
            federation.submit(house.spec(local={"steps": 0, "batch_size": 1, "learning_rate": 1.0}))
        with pytest.raises(FedbusError, match="no job 'nothing'"):
            federation.job("nothing")
        with pytest.raises(FedbusError, match="no job 'nothing'"):
            list(federation.watch("nothing"))
        with pytest.raises(SettingsError, match="cannot read job spec"):
            federation.submit("missing.yaml")
        federation.close()
    with pytest.raises(ConnectionLostError, match="was closed"):
        federation.jobs()
    assert "fedbus" not in [thread.name for thread in threading.enumerate()]


def _two_threads_ask(house: Any) -> None:
    with fedbus.connect(house.running.url("submitter")) as federation:
        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.append(len(federation.jobs()))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [found[0]] * 8


def _a_fork_is_told(house: Any) -> None:
    code = (
        "import fedbus, os, sys\n"
        "federation = fedbus.connect()\n"
        "if (child := os.fork()) == 0:\n"
        "    try:\n"
        "        federation.jobs()\n"
        "    except fedbus.errors.ConnectionLostError as exc:\n"
        "        print(exc, flush=True)\n"
        "    sys.exit()\n"
        "os.waitpid(child, 0)\n"
        "print(len(federation.jobs()), 'jobs')\n"
    )
    done = python(code, FEDBUS_BROKER_URL=house.running.url("submitter"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "another process (fork): connect again" in done.stdout
    assert "jobs" in done.stdout


def _a_connection_that_nobody_closed(house: Any) -> None:
    """Nor does it keep the interpreter, also when Ctrl-C comes while it waits."""
    url = house.running.url("submitter")
    done = python("import fedbus\nprint(len(fedbus.connect().sites()))", FEDBUS_BROKER_URL=url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")

    code = (
        "import fedbus\n"
        "federation = fedbus.connect()\n"
        "job = federation.submit({'name': 'waits', 'task': 'synthetic', 'min_sites': 9, 'stop': {'versions': 1},\n"
        "    'local': {'steps': 1, 'batch_size': 1, 'learning_rate': 1.0}})\n"
        "try:\n"
        "    for event in federation.watch(job):\n"
        "        print(event.kind, flush=True)\n"
        "except KeyboardInterrupt:\n"
        "    federation.abort(job)\n"
        "    print(federation.wait(job).state)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "FEDBUS_BROKER_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "job-submitted\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("aborted\n")


def _without_pandas(house: Any) -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import fedbus, importlib.util\n"
        "with fedbus.connect() as federation:\n"
        "    job = next(j.job for j in federation.jobs() if j.state == 'finished')\n"
        "    print(type(federation.history(job)[0]).__name__)\n"
    )
    done = python(code, FEDBUS_BROKER_URL=house.running.url("submitter"))
    assert (done.stdout, done.stderr) == (f"{VersionLine.__name__}\n", "")


async def test_the_async_face_outlives_its_broker(vhost: Any) -> None:
    """A question that is asked while the broker is away fails with our error; the next one connects anew."""
    url = vhost.url("submitter")
    proxy = Proxy(url)
    await proxy.up()
    try:
        async with fedbus.connect_async(proxy.url(url), timeout_s=1.5) as federation:
            port = proxy.port
            proxy.down()
            with pytest.raises(FedbusError):
                await federation.jobs()
            await proxy.up(port)
            with pytest.raises(FedbusError, match="is the aggregator running"):
                await federation.jobs()
    finally:
        await proxy.close()


def test_import_fedbus_loads_nothing() -> None:
    done = python(
        f"import sys, fedbus; print([m for m in {HEAVY} if m in sys.modules]); fedbus.connect; print(fedbus.__all__)"
    )
    assert done.stdout == "[]\n['connect', 'connect_async']\n"
