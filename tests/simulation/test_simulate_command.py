from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedbus.cli.commands import app
from fedbus.errors import SettingsError

JOB = """
name: tiny
task: digits
task_config: {shared_test: true}
local: {steps: 2, batch_size: 8, learning_rate: 0.1}
codec: {up: int8, down: int8}
stop: {wall_time_s: 6}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(job: Path, *options: str, ok: bool = True) -> Any:
    result = CliRunner().invoke(app, ["simulate", str(job), *options])
    if ok and result.exception is not None:
        raise result.exception
    return result


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(job: Path) -> None:
    options = ("--sites", "4", "--speeds", "geometric:4", "--churn", "0.2", "-o", "json")

    first, again, other = (run(job, *options, "--seed", seed).stdout for seed in ("1", "1", "2"))

    assert first == again
    assert json.loads(first)["params_digest"] != json.loads(other)["params_digest"]


def test_it_learns_and_says_how_it_went(job: Path) -> None:
    text = run(job, "--sites", "3", "--speeds", "equal", "--until", "4").stdout

    assert "4 virtual seconds are over" in text
    assert "site-03" in text


def test_the_files_hold_the_curve(job: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws curves.png; deploy/setup test installs it")
    out = tmp_path / "out"

    facts = json.loads(run(job, "--sites", "3", "--out", str(out), "-o", "json").stdout)

    assert json.loads((out / "result.json").read_text()) == facts
    assert len((out / "curve.csv").read_text().splitlines()) == len(facts["points"]) + 1
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_all_but_the_picture(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    result = run(job, "--sites", "2", "--out", str(tmp_path / "out"))

    assert "pip install fedbus[simulate]" in result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["curve.csv", "result.json"]


def test_hospitals_bring_their_own_data(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB.replace("digits", "heart_disease").replace("{shared_test: true}", "{}"))

    facts = json.loads(run(job, "-o", "json").stdout)

    assert sorted(facts["sites"]) == ["cleveland", "hungary", "switzerland", "va-long-beach"]


def test_the_curve_counts_what_another_scanner_sees_also_of_shared_test_images(job: Path, tmp_path: Path) -> None:
    other = tmp_path / "scanners.yaml"
    keys = "{shared_test: true, scanner_sites: 1, scanner_scale: 0.2, scanner_shift: 0.7}"
    other.write_text(JOB.replace("{shared_test: true}", keys))

    alike, apart = (json.loads(run(path, "--sites", "3", "-o", "json").stdout)["points"][0] for path in (job, other))

    assert alike["version"] == apart["version"] == 0  # the same params, before anybody has trained
    assert alike["metrics"]["loss"] != apart["metrics"]["loss"]


def test_data_folders_name_the_sites(job: Path, tmp_path: Path) -> None:
    for index, name in enumerate(("north", "south")):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "digits.json").write_text(json.dumps({"index": index, "sites": 2}))

    facts = json.loads(run(job, "--data", str(tmp_path / "data"), "-o", "json").stdout)

    assert list(facts["sites"]) == ["north", "south"]


def test_a_site_joins_and_another_leaves(job: Path) -> None:
    options = ("--sites", "3", "--speeds", "equal", "--join", "site-03:3.5", "--leave", "site-01:2.5", "-o", "json")

    sites = json.loads(run(job, *options).stdout)["sites"]

    assert [sites[name]["folded"] for name in sites] == [2, 6, 2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--sites", "3", "--join", "site-09:3"), "the sites are"),
        (("--sites", "3", "--leave", "site-01"), "SITE:SECONDS"),
        (("--sites", "3", "--churn", "1"), "churn < 1"),
        (("--speeds", "equal"), "--sites"),
        (("--data", "/no/such/folder"), "folders"),
    ],
)
def test_what_cannot_be_done_is_said(options: tuple[str, ...], says: str, job: Path) -> None:
    result = run(job, *options, ok=False)

    assert isinstance(result.exception, SettingsError)
    assert says in str(result.exception)


def test_a_task_of_ones_own_is_told_to_need_data(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(JOB.replace("digits", "ward").replace("{shared_test: true}", "{}"))

    result = run(job, ok=False)

    assert isinstance(result.exception, SettingsError)
    assert "task 'ward' needs data: give --data DIR, a folder with one folder per site" in str(result.exception)
