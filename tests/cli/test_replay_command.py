"""`fedbus replay`: what it says of a folder, a job or a wish that it can do nothing with."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fedbus.cli import replay_tables
from fedbus.cli.commands import app
from fedbus.cli.tables import print_tables
from fedbus.errors import FedbusError, SettingsError, StoreError
from fedbus.store.ledger import Ledger


@pytest.fixture
def state(tmp_path):
    """The state folder of an aggregator with two jobs of which one has params, and nothing else of either."""
    folder = tmp_path / "state"
    folder.mkdir()
    spec = {"name": "heart", "task": "t", "local": {"steps": 1, "batch_size": 1, "learning_rate": 1}}
    spec["stop"] = {"versions": 1}
    with Ledger(folder / "ledger.sqlite3") as ledger:
        for job in ("heart-1", "heart-2", "liver-1"):
            row = {"message_id": job, "submitted_by": "me", "state": "waiting for sites", "at": 0.0}
            ledger.add_job(job, spec, **row)
        for job in ("heart-1", "heart-2"):
            ledger.set_job(job, layout={"tensors": [["weight", [3], "float32"]]})
    return folder


def replay(*arguments):
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["--job", "brain-1"], StoreError, "no job 'brain-1' in this ledger; jobs: heart-1, heart-2, liver-1"),
        (["--job", "liver-1"], StoreError, "job liver-1 has no params yet: it is waiting for sites"),
        (["--job", "heart-1"], StoreError, "job heart-1: no checkpoint is there that has the bodies of all updates"),
        (["--without", "mercy"], SettingsError, "are for one job: give --job, one of heart-1, heart-2"),
        (["--without", "mercy", "--verify"], SettingsError, "give one of the two"),
        (["--out", "STATE/x.safetensors"], SettingsError, "lies in the state folder, where a replay writes nothing"),
    ],
)
def test_what_cannot_be_done_is_an_error_that_says_why(state, arguments, error, says):
    result = replay(state, *(word.replace("STATE", str(state)) for word in arguments))
    assert isinstance(result.exception, error)
    assert isinstance(result.exception, FedbusError)
    assert says in str(result.exception)
    assert result.stdout == ""


def test_a_job_that_cannot_be_replayed_leaves_the_others_their_lines(state):
    result = replay(state, "-o", "json")
    assert result.exit_code == 1
    rows = json.loads(result.stdout)
    assert [(row["job"], row["identical"], row["failed"]) for row in rows] == [
        ("heart-1", None, True),
        ("heart-2", None, True),
    ]
    assert "job heart-1: no checkpoint is there" in replay(state).stdout


def test_long_names_and_numbers_fit_into_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    # given: the longest names that there are, and numbers of a large model
    site, job = "s" * 40, "j" * 40
    share = {"site": site, "updates": 123456, "norm": 1.2345e-12, "cosine": -0.123456, "left_out": True}
    group = {"group": "swin_unetr.encoder.layers", "elements": 500_000_000, "moved": 12.3, "difference": 4.5e-7}
    row = {"job": job, "without": [site], "from_version": 0, "to_version": 99999, "left_out": 1, "updates": 123456}
    row |= {"skipped": 1, "seconds": 12345.6, "gone": 3, "says": f"{site} points against the others"}
    print_tables(*replay_tables.left_out_tables(row | {"sites": [share], "groups": [group | {"cosine": None}]}))
    verdict = {"job": job, "from_version": 0, "to_version": 9, "updates": 1, "seconds": 1.0, "failed": False}
    print_tables(replay_tables.verdicts_table([verdict | {"says": "bit-identical " * 9}]))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert all(word in shown for word in (job, "500,000,000", "-0.123", "4.5e-07", "1 version had nothing else"))
