"""`fedbus site report`, run as a person at the site does, on the files that the site's daemon has left there."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import DataError
from fedbus.site.job.model_files import Held, ModelFiles
from fedbus.site.job.put_away import at_site, discard, job_folder, put_away, write_spec
from fedbus.site.settings import SiteSettings
from fedbus.tensors.digest import digest
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames
from fedbus.training.session import Session

SITE_PACKAGE = Path(__file__).parents[1] / "training" / "site_package"
WATCHED = """
import json, os, sys
seen = {"sockets": [], "written": [], "started": []}
def hook(event, args):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo"):
        seen["sockets"].append(f"{event} {args!r}")
    if event == "open" and isinstance(args[0], str) and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        seen["written"].append(os.path.abspath(args[0]))
    if event in ("subprocess.Popen", "os.posix_spawn", "os.exec", "os.system"):
        seen["started"].append(f"{event} {args!r}")
sys.addaudithook(hook)
from fedbus.cli.app import main
sys.argv = ["fedbus", *sys.argv[2:]]
try:
    main()
finally:
    seen["loaded"] = [name for name in sys.modules if name.startswith(("fedbus.bus", "aio_pika", "aiormq"))]
    with os.fdopen(int(os.environ["SEEN_TO"]), "w") as out:
        json.dump(seen, out)
"""


def a_spec(**given: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse({"name": "hip", "task": "shown", "local": local, "stop": {"versions": 9}} | given)


def hold_a_model(settings: SiteSettings, job: str, spec: TrainingSpec, folder: Path) -> None:
    """Put a snapshot where the daemon keeps it."""
    opening = p.Open(
        job=job,
        task=spec.task,
        task_config={},
        seed=0,
        site="mercy",
        data=str(settings.site_data),
        local={},
        chunk_bytes=1 << 20,
        device="cpu",
    )
    session = Session(opening)
    made = session.make_initial(p.MakeInitial(path=str(folder / "v0")))
    session_digest = _digest_of(session, folder / "v0", made)
    files = ModelFiles(job_folder(settings, job) / "model")
    snapshot = job_folder(settings, job) / "model" / "v00000007.snapshot"
    (folder / "v0").rename(snapshot)
    held = Held(
        version=7,
        digest=session_digest,
        layout=dict(made.layout),
        snapshot_version=7,
        snapshot_digest=session_digest,
        snapshot=snapshot,
    )
    files._held = held
    files.remember(1)
    write_spec(job_folder(settings, job), spec)


def _digest_of(session: Session, path: Path, made: p.Made) -> str:
    import torch

    from fedbus.core.protocol.layout import Layout
    from fedbus.tensors.codec import decode_all_

    flat = torch.zeros(session.layout.numel)
    decode_all_(flat, read_frames(path), Layout.from_dict(made.layout))
    return digest(flat)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteSettings:
    monkeypatch.syspath_prepend(str(SITE_PACKAGE))
    data = tmp_path / "data"
    data.mkdir()
    return SiteSettings(site_name="mercy", site_data=data, site_state_dir=tmp_path / "state", keep_models=2)


def run_report(settings: SiteSettings, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the command and return how it ended, and what an audit hook has seen of it."""
    read_end, write_end = os.pipe()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEDBUS_")}
    path = os.pathsep.join([str(SITE_PACKAGE), environment.get("PYTHONPATH", "")])
    environment |= {"PYTHONPATH": path, "SEEN_TO": str(write_end), "OMP_NUM_THREADS": "1"}
    environment |= {"FEDBUS_BROKER_URL": "amqp://mercy:secret@127.0.0.1:9/fedbus"}
    where = ["--name", "mercy", "--data", str(settings.site_data), "--state-dir", str(settings.state_dir)]
    command = [sys.executable, "-c", WATCHED, "--", "site", "report", *where, *options]
    done = subprocess.run(
        command, env=environment, pass_fds=(write_end,), capture_output=True, text=True, check=False, timeout=120
    )
    os.close(write_end)
    with os.fdopen(read_end) as seen:
        return done, json.loads(seen.read() or "{}")


def test_a_report_shows_the_cases_and_nothing_of_it_leaves_the_site(settings: SiteSettings, tmp_path: Path) -> None:
    # given a site that works for a job
    hold_a_model(settings, "hip-1", a_spec(), tmp_path)
    before = sorted(settings.state_dir.rglob("*"))
    # when the people there ask for its report
    done, seen = run_report(settings)
    # then it is in the site's folder, for its owner alone
    path = settings.state_dir / "reports" / "hip-1-version-7.html"
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    html = path.read_text()
    for text in ("The best case: patient-0", "The median case: patient-1", "The worst case: patient-3", "patient-4"):
        assert text in html, text
    assert html.count("data:image/png;base64,") == 3 * 6
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    # and nothing was connected, started, or written anywhere else
    assert (seen["sockets"], seen["started"], seen["loaded"]) == ([], [], [])
    assert str(path.parent) in " ".join(seen["written"]), "the hook sees what is written"
    elsewhere = [name for name in seen["written"] if not name.startswith(str(path.parent))]
    assert [name for name in elsewhere if name.startswith(str(tmp_path)) and "write-test" not in name] == []
    assert [one for one in sorted(settings.state_dir.rglob("*")) if path.parent not in (one, one.parent)] == before


def test_a_report_goes_elsewhere_only_when_it_is_told_to(settings: SiteSettings, tmp_path: Path) -> None:
    hold_a_model(settings, "hip-1", a_spec(), tmp_path)
    to = tmp_path / "mine.json"
    to.write_text("mine")
    refused, _ = run_report(settings, "hip-1", "--to", str(to))
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    assert to.read_text() == "mine"
    done, _ = run_report(settings, "hip-1", "--to", str(to), "--force")
    assert done.returncode == 0, done.stderr
    facts = json.loads(to.read_text())
    assert (facts["version"], facts["cases"][0]["id"]) == (7, "patient-0")
    assert facts["cases"][-1] == {"id": "patient-4", "mean": None, "scores": {"organ": None}}
    assert not (settings.state_dir / "reports").exists()


def test_a_task_without_cases_and_a_job_that_is_not_here_are_said(settings: SiteSettings, tmp_path: Path) -> None:
    hold_a_model(settings, "stub-1", a_spec(task="stub"), tmp_path)
    done, _ = run_report(settings)
    assert done.returncode == 1
    assert "needs a task that has cases(model)" in done.stderr
    with pytest.raises(DataError, match=r"no model of job hip-9 .* jobs here: stub-1"):
        at_site(settings, "hip-9")


def test_the_models_of_the_jobs_that_ended_last_stay(settings: SiteSettings, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        hold_a_model(settings, f"hip-{number}", a_spec(), tmp_path)
        put_away(settings, f"hip-{number}")
    assert at_site(settings, None).job == "hip-3"
    assert at_site(settings, "hip-2").ended
    with pytest.raises(DataError, match="hip-1"):
        at_site(settings, "hip-1")
    assert not job_folder(settings, "hip-3").exists()

    discard(settings, "hip-3")
    assert at_site(settings, None).job == "hip-2"


def test_a_site_may_keep_none(settings: SiteSettings, tmp_path: Path) -> None:
    none = settings.model_copy(update={"keep_models": 0})
    hold_a_model(none, "hip-1", a_spec(), tmp_path)
    put_away(none, "hip-1")
    with pytest.raises(DataError, match="jobs here: none"):
        at_site(none, None)
