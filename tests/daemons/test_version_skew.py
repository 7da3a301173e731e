"""A site of the release before with an aggregator of this one: its wheel, as a hospital has it that upgrades later."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEFORE = "c79e280"
"""What counts as the release before while no release is tagged: the last commit before this one's work began."""


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""


@pytest.fixture(scope="module")
def wheel_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel of the last tag, or of `BEFORE`."""
    commit = git("describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^").decode().strip() or BEFORE
    archive = git("archive", commit)
    if not archive:
        pytest.skip(f"the history has no commit {commit}: a shallow clone, or no clone")
    folder = tmp_path_factory.mktemp("before")
    (folder / "source").mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder / "source")], input=archive, check=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next((folder / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(folder / "installed")
    return folder / "installed"


def test_a_site_of_the_release_before_takes_part(sealed_house, wheel_before, monkeypatch):
    # given an aggregator and a site of this release, and one of the release before
    house = sealed_house
    house.start_aggregator()
    house.start_site("site-a", step_delay_s=0.02)
    with monkeypatch.context() as before:
        before.chdir(wheel_before)
        before.setenv("PYTHONPATH", str(wheel_before))
        old = house.start_site("site-b", step_delay_s=0.02)
    old.wait_for("site-ready")
    code = Path(f"/proc/{old.pid}/cwd").resolve()
    assert code == wheel_before.resolve()
    # when they train together, signed and sealed
    job = house.submit(min_sites=2, stop={"versions": 8})
    # then both are in it, and the job comes to its end
    house.ended(job)
    assert {fact.update_id.site for fact in house.folded(job)} == {"site-a", "site-b"}
    assert not house.refused_in_time(job)
    # and a person sees it beside the other
    assert "site-b" in house.fedbus("sites").out
