"""Points in the tools' own files, read back by the tools' own readers where they have one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedbus.errors import SettingsError, StoreError
from fedbus.tracking.mlflow import MlflowSink
from fedbus.tracking.points import Point
from fedbus.tracking.sink import Sink, Target, Tool
from fedbus.tracking.tensorboard import TensorBoardSink
from fedbus.tracking.track import Writer
from fedbus.tracking.wandb import WandbSink, points_in

JOB = "heart-0123abcd"
POINTS = [
    Point(name=f"score/auc/{site}", version=version, value=0.5 + version / 10, at=1_700_000_000.0 + version)
    for version in range(40)
    for site in ("mercy", "ucsf", "mean")
]


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's file store needs a word of consent; wandb keeps its settings below HOME."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


def tensorboard(folder: Path) -> Sink:
    return TensorBoardSink(folder / JOB)


def mlflow(folder: Path) -> Sink:
    return MlflowSink(folder.as_uri(), JOB, "heart")


def wandb(folder: Path) -> Sink:
    return WandbSink(folder, JOB, "heart")


@pytest.mark.parametrize("sink", [tensorboard, mlflow, wandb])
def test_a_restart_doubles_no_point_and_loses_none(sink: Callable[[Path], Sink], tmp_path: Path) -> None:
    # given a process that ended early
    folder = tmp_path / "there"
    first = Writer(sink(folder))
    first.write(POINTS[:60])
    first.write(POINTS[:60])
    first.close(None)
    # when the next one sees every event again, from the start
    second = Writer(sink(folder))
    second.write(POINTS)
    second.close("finished")
    # then each point is there once
    assert (first.count, second.count) == (60, 60)
    assert sink(folder).written() == {point.key for point in POINTS}
    read = {tensorboard: from_tensorboard, mlflow: from_mlflow, wandb: from_wandb}[sink]
    assert sorted(read(folder)) == sorted((p.name, p.version) for p in POINTS)


def from_tensorboard(folder: Path) -> list[tuple[str, int]]:
    found = EventAccumulator(str(folder / JOB), size_guidance={"scalars": 0})
    found.Reload()
    assert found.Scalars("score/auc/mercy")[3].value == pytest.approx(0.8)
    assert found.Scalars("score/auc/mercy")[3].wall_time == 1_700_000_003.0
    return [(tag, point.step) for tag in found.Tags()["scalars"] for point in found.Scalars(tag)]


def from_mlflow(folder: Path) -> list[tuple[str, int]]:
    client = MlflowClient(tracking_uri=folder.as_uri())
    experiment = client.get_experiment_by_name("fedbus/heart")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (JOB, "FINISHED")
    assert run.data.metrics["score/auc/mean"] == pytest.approx(4.4)
    return [(name, m.step) for name in run.data.metrics for m in client.get_metric_history(run.info.run_id, name)]


def from_wandb(folder: Path) -> list[tuple[str, int]]:
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2, "of one run, which `wandb sync` puts together"
    for file in files:
        for word in (b"pytest", b"broker", str(Path.cwd()).encode()):
            assert word not in file.read_bytes(), "nothing of this machine"
    return [point for file in files for point in points_in(file)]


def test_a_run_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    sink = wandb(tmp_path)
    sink.write(POINTS)
    sink.close(None)
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    whole = list(points_in(file))
    data = file.read_bytes()
    for size in (0, 3, 7, 10, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        assert list(points_in(file)) == whole[: len(list(points_in(file)))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tensorboard", "expected one of tensorboard:DIR"),
        ("tensorboard:", "expected one of tensorboard:DIR"),
        ("aim:/x", "expected one of tensorboard:DIR"),
        ("mlflow:runs", "expected the address of a tracking server"),
        ("mlflow:file:///etc", "expected the address of a tracking server"),
        ("mlflow:http://[", "expected the address of a tracking server"),
    ],
)
def test_a_target_that_is_none_is_said(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Target.parse(text)


def test_targets_are_read() -> None:
    assert Target.parse("mlflow:https://ml.example:5000/x") == Target(
        tool=Tool.MLFLOW, place="https://ml.example:5000/x"
    )
    assert Target.parse("wandb-offline:runs").place == str(Path("runs").absolute())


def test_a_folder_that_cannot_be_written_and_a_server_that_is_away_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write event files"):
        tensorboard(tmp_path / "file").write(POINTS)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="is the tracking server there"):
        MlflowSink("http://127.0.0.1:9", JOB, "heart").written()
