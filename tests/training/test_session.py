"""What each command does, without a process; the task is `stub`, whose training adds `step` to every param."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Kind, Layout
from fedbus.errors import DataError, LayoutError, ProtocolError, TaskError
from fedbus.tensors import codec
from fedbus.tensors.digest import digest
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames, write_frames
from fedbus.training.session import Session, check_same_layout

SITE_PACKAGE = Path(__file__).parent / "site_package"


@pytest.fixture(autouse=True)
def site_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SITE_PACKAGE))


def opening(data: Path, *, local: dict[str, Any] | None = None, **options: Any) -> p.Open:
    spec = {"steps": 3, "batch_size": 1, "learning_rate": 0.1} | (local or {})
    fields = {"job": "job", "task": "stub", "task_config": {}, "seed": 5, "site": "site-a", "up": "fp32"} | options
    return p.Open(data=str(data), local=spec, chunk_bytes=1 << 20, device="cpu", **fields)


def ignore(step: int, steps: int, loss: float | None) -> None:
    pass


class Model:
    """The aggregator's side of one job: version 0 as a snapshot, then deltas of ones and values of one."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.folder = folder
        made = session.make_initial(p.MakeInitial(path=str(folder / "v0")))
        self.layout = Layout.from_dict(made.layout)
        self.flat = self.read(folder / "v0")
        self.version = 0

    def read(self, path: Path) -> torch.Tensor:
        flat = torch.zeros(self.layout.numel)
        codec.decode_change_(flat, read_frames(path), self.layout)
        return flat

    def commit(self) -> str:
        self.version += 1
        delta = torch.ones(self.layout.numel)
        self.flat = torch.cat([delta[: self.layout.value_numel], (self.flat + delta)[self.layout.value_numel :]])
        path = self.folder / f"v{self.version}"
        write_frames(path, codec.encode(delta, self.layout, Code.FP32, seed=0))
        return str(path)

    def load(self, *deltas: str, snapshot: bool = True, digest_: str | None = None) -> p.Load:
        return p.Load(
            version=self.version,
            digest=digest_ or digest(self.flat),
            deltas=deltas,
            snapshot=str(self.folder / "v0") if snapshot else None,
            layout=self.layout.to_dict() if snapshot else None,
        )


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(opening(tmp_path))


@pytest.fixture
def model(session: Session, tmp_path: Path) -> Model:
    return Model(session, tmp_path)


def train(session: Session, path: Path, seed: int = 1, cancel: threading.Event | None = None) -> Any:
    return session.train(p.Train(path=str(path), seed=seed), cancel or threading.Event(), ignore)


def test_a_training_makes_the_steps_that_its_command_says(session: Session, model: Model, tmp_path: Path) -> None:
    session.load(model.load())

    trained = session.train(p.Train(path=str(tmp_path / "short"), seed=1, steps=2), threading.Event(), ignore)

    assert trained.effort.steps == 2
    assert train(session, tmp_path / "whole").effort.steps == 3  # the job's own, the next time


def test_opened_names_device_and_layout(session: Session, model: Model) -> None:
    assert session.opened() == p.Opened(device="cpu", layout_digest=model.layout.digest, numel=36 + 4 + 4 * 4)


def test_initial_params_depend_only_on_the_seed_of_the_job(tmp_path: Path) -> None:
    def initial(name: str, seed: int) -> bytes:
        session = Session(opening(tmp_path, site=name, seed=seed))
        session.make_initial(p.MakeInitial(path=str(tmp_path / name)))
        return (tmp_path / name).read_bytes()

    assert initial("site-a", 5) == initial("site-b", 5) != initial("site-c", 6)


def test_initial_params_are_fresh_after_a_training(session: Session, model: Model, tmp_path: Path) -> None:
    session.load(model.load())
    train(session, tmp_path / "update")

    session.make_initial(p.MakeInitial(path=str(tmp_path / "again")))

    assert (tmp_path / "again").read_bytes() == (tmp_path / "v0").read_bytes()


def test_integer_buffers_do_not_travel(model: Model) -> None:
    assert "1.running_mean" in model.layout.slices()
    assert "1.num_batches_tracked" not in model.layout.slices()


def test_the_delta_is_local_params_minus_base_params(session: Session, model: Model, tmp_path: Path) -> None:
    session.load(model.load())

    trained = train(session, tmp_path / "update")

    delta = model.read(tmp_path / "update")
    buffers = [slice(*model.layout.slices()[name]) for name in ("1.running_mean", "1.running_var")]
    expected = torch.full_like(delta, 3 * 0.5)
    for place in buffers:
        expected[place] = 0
    assert torch.allclose(delta, expected, atol=1e-6)
    assert trained.base_version == 0
    assert trained.effort.steps == 3
    assert trained.effort.num_examples == 7
    assert sum(trained.frame_sizes) == (tmp_path / "update").stat().st_size


def test_the_local_model_is_written_whole_only_where_it_is_asked_for(
    session: Session, model: Model, tmp_path: Path
) -> None:
    session.load(model.load())
    assert train(session, tmp_path / "update").local_sizes == ()
    command = p.Train(path=str(tmp_path / "update"), seed=7, local=str(tmp_path / "local"))
    trained = session.train(command, threading.Event(), lambda step, steps, loss: None)
    assert isinstance(trained, p.Trained)
    assert sum(trained.local_sizes) == (tmp_path / "local").stat().st_size
    difference = model.read(tmp_path / "local") - model.read(tmp_path / "v0")
    assert torch.allclose(difference, model.read(tmp_path / "update"), atol=1e-6)


def test_metrics_are_finite_and_hold_the_reported_loss(session: Session, model: Model, tmp_path: Path) -> None:
    session.load(model.load())

    assert train(session, tmp_path / "update").effort.metrics == {"loss": 1.25, "fine": 1.0}
    scored = session.score(p.Score(version=0))
    assert scored.metrics.keys() == {"mean"}
    assert scored.not_finite == ("auc",)


def test_every_training_starts_from_the_loaded_version(session: Session, model: Model, tmp_path: Path) -> None:
    session.load(model.load())

    train(session, tmp_path / "first")
    train(session, tmp_path / "second")

    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_deltas_lead_from_the_snapshot_to_the_version(session: Session, model: Model) -> None:
    deltas = [model.commit(), model.commit()]

    assert session.load(model.load(*deltas)) == p.Loaded(version=2)
    assert session.score(p.Score(version=2)).version == 2


def test_only_missing_deltas_are_loaded_when_the_session_holds_a_version(session: Session, model: Model) -> None:
    session.load(model.load())
    deltas = [model.commit(), model.commit()]

    assert session.load(model.load(*deltas, snapshot=False)) == p.Loaded(version=2)


def test_deltas_without_their_base_are_refused(session: Session, model: Model) -> None:
    delta = model.commit()

    answer = session.load(model.load(delta, snapshot=False))

    assert isinstance(answer, p.LoadFailed)
    assert answer.reason == "1 deltas do not lead from nothing to version 1"


def test_a_gap_between_deltas_is_refused(session: Session, model: Model) -> None:
    session.load(model.load())
    model.commit()
    delta = model.commit()

    answer = session.load(model.load(delta, snapshot=False))

    assert isinstance(answer, p.LoadFailed)
    assert "from version 0 to version 2" in answer.reason


def test_a_digest_that_differs_empties_the_replica(session: Session, model: Model, tmp_path: Path) -> None:
    session.load(model.load())
    delta = model.commit()

    answer = session.load(model.load(delta, snapshot=False, digest_="0" * 16))

    assert isinstance(answer, p.LoadFailed)
    assert f"expected params with digest {'0' * 16}, got {digest(model.flat)}" in answer.reason
    with pytest.raises(ProtocolError, match="no version is loaded"):
        train(session, tmp_path / "update")
    assert session.load(model.load(delta)) == p.Loaded(version=1)


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_file_is_refused_with_its_reason(damage: str, session: Session, model: Model) -> None:
    path = Path(model.commit())
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-3])
    if damage == "flipped":
        data[40] ^= 1
        path.write_bytes(data)

    answer = session.load(model.load(str(path)))

    assert isinstance(answer, p.LoadFailed)
    assert answer.reason


def test_another_layout_is_an_error_that_names_the_tensors(model: Model, tmp_path: Path) -> None:
    other = Session(opening(tmp_path, task_config={"channels": 6}))

    with pytest.raises(LayoutError) as found:
        other.load(model.load())

    assert "job's params have 0.weight (4,1,3,3), this site's task makes (6,1,3,3)" in str(found.value)
    assert "0.bias (4), this site's task makes (6)" in str(found.value)


def test_a_tensor_that_only_one_side_has_is_named(model: Model) -> None:
    fewer = Layout(tensors=model.layout.tensors[:-1])
    renamed = Layout.of([*fewer.tensors, dataclasses.replace(model.layout.tensors[-1], name="new", dtype="float16")])

    with pytest.raises(LayoutError, match=r"this site's task makes no 1\.weight"):
        check_same_layout(model.layout, fewer)
    with pytest.raises(LayoutError, match=r"job's params have new \(4\) float16, this site's task makes no new"):
        check_same_layout(renamed, model.layout)


def test_another_order_is_an_error(model: Model) -> None:
    *rest, first, second = model.layout.tensors

    with pytest.raises(LayoutError, match="another order"):
        check_same_layout(Layout(tensors=(*rest, second, first)), model.layout)


def test_a_tensor_that_is_frozen_at_one_side_only_is_named(model: Model) -> None:
    *rest, last = model.layout.tensors
    frozen = Layout.of([*rest, dataclasses.replace(last, kind=Kind.FROZEN)])

    with pytest.raises(LayoutError, match=r"job's params have 1\.weight learnt, this site's task makes frozen"):
        check_same_layout(model.layout, frozen)


def test_a_layout_that_is_none_is_refused(session: Session, model: Model) -> None:
    load = dataclasses.replace(model.load(), layout={"tensors": 5})

    assert isinstance(session.load(load), p.LoadFailed)


def test_a_cancelled_training_writes_nothing(session: Session, model: Model, tmp_path: Path) -> None:
    session.load(model.load())
    cancel = threading.Event()
    cancel.set()

    assert train(session, tmp_path / "update", cancel=cancel) == p.Cancelled(base_version=0, steps=0)
    assert not (tmp_path / "update").exists()


@pytest.mark.parametrize(
    ("mode", "message"),
    [("nan", "training diverged: params are not finite after 3 steps"), ("none", "number of examples >= 1, got 0")],
)
def test_a_training_without_use_is_an_error(mode: str, message: str, tmp_path: Path) -> None:
    session = Session(opening(tmp_path, task_config={"mode": mode}))
    session.load(Model(session, tmp_path).load())

    with pytest.raises(TaskError, match=message):
        train(session, tmp_path / "update")


def test_a_session_trains_on_after_an_error(tmp_path: Path) -> None:
    session = Session(opening(tmp_path, task_config={"mode": "nan"}))
    model = Model(session, tmp_path)
    session.load(model.load())
    with pytest.raises(TaskError):
        train(session, tmp_path / "update")

    assert session.score(p.Score(version=0)).num_examples == 3


def test_scoring_another_version_is_refused(session: Session, model: Model) -> None:
    session.load(model.load())

    with pytest.raises(ProtocolError, match="asked to score version 4, version 0 is loaded"):
        session.score(p.Score(version=4))


@pytest.mark.parametrize("up", [code.value for code in Code])
def test_the_delta_is_coded_as_the_job_says(up: str, tmp_path: Path) -> None:
    session = Session(opening(tmp_path, up=up, task="synthetic", task_config={"numel": 9000, "tensors": 2}))
    model = Model(session, tmp_path)
    session.load(model.load())

    train(session, tmp_path / "update")

    delta = model.read(tmp_path / "update")
    assert delta.abs().max() <= 3.1e-3
    assert delta.abs().max() > 1e-3


def test_the_same_seed_gives_the_same_update(tmp_path: Path) -> None:
    def update(name: str, seed: int) -> bytes:
        session = Session(opening(tmp_path, up="int8", task="synthetic", task_config={"numel": 9000, "tensors": 2}))
        session.load(Model(session, tmp_path).load())
        train(session, tmp_path / name, seed)
        return (tmp_path / name).read_bytes()

    assert update("first", 1) == update("again", 1) != update("other", 2)


def test_an_empty_data_folder_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected heart_disease\.csv"):
        Session(opening(tmp_path, task="heart_disease"))


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="device 'abacus' cannot be used here"):
        Session(dataclasses.replace(opening(tmp_path), device="abacus"))


COUNTER = {"1.num_batches_tracked"}


def test_only_what_travels_is_in_the_layout_and_the_rest_stays_here_across_trainers(tmp_path: Path) -> None:
    options = {"travel": ("0.*",), "kept": str(tmp_path / "kept" / "job.safetensors")}
    session = Session(opening(tmp_path, **options))
    model = Model(session, tmp_path)
    session.load(model.load())
    train(session, tmp_path / "update")

    assert model.layout.slices().keys() == {"0.weight", "0.bias"}
    # when another trainer takes the job up
    again = Session(opening(tmp_path, **options))
    again.load(model.load())
    train(again, tmp_path / "again")
    kept = load_file(tmp_path / "kept" / "job.safetensors")

    assert kept.keys() == {f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var")} | COUNTER
    assert kept["1.weight"].tolist() == [1 + 2 * 3 * 0.5] * 4


def test_a_cancelled_training_leaves_nothing_in_what_stays_here(tmp_path: Path) -> None:
    session = Session(opening(tmp_path, travel=("0.*",), kept=str(tmp_path / "kept.safetensors")))
    session.load(Model(session, tmp_path).load())
    # given a training that has changed every param, and was cancelled then
    cancel = threading.Event()
    session.train(p.Train(path=str(tmp_path / "dropped"), seed=1), cancel, lambda *_: cancel.set())
    # when the next one is whole
    train(session, tmp_path / "update")
    # then what stays here is one training away from where it began
    assert load_file(tmp_path / "kept.safetensors")["1.weight"].tolist() == [1 + 3 * 0.5] * 4


def test_a_training_that_is_not_finite_leaves_nothing_in_what_stays_here(tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    session = Session(opening(tmp_path, travel=("0.*",), kept=str(kept), task_config={"mode": "nan"}))
    session.load(Model(session, tmp_path).load())
    with pytest.raises(TaskError):
        train(session, tmp_path / "update")
    session.score(p.Score(version=0))
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(kept).values())


def test_what_a_job_has_frozen_comes_with_the_first_params_and_is_never_sent(tmp_path: Path) -> None:
    """The task adds to every param with its own hands, also to those that want no gradient."""
    session = Session(opening(tmp_path, frozen=("0.*", "buffers")))
    model = Model(session, tmp_path)
    session.load(model.load())

    train(session, tmp_path / "update")

    assert model.layout.value_numel == 36 + 4 + 2 * 4
    assert model.layout.value_numel == sum(t.numel for t in model.layout.tensors if t.kind is Kind.FROZEN)
    update = model.read(tmp_path / "update")
    assert not update[: model.layout.value_numel].any()
    assert torch.allclose(update[model.layout.value_numel :], torch.full((8,), 1.5))


@pytest.mark.parametrize("key", ["travel", "keep", "frozen"])
def test_a_pattern_that_names_no_tensor_of_the_task_s_model_is_an_error(key: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=f"{key}: 'head' matches no tensor of the model"):
        Session(opening(tmp_path, **{key: ("head",)}))
