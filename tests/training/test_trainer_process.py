"""The trainer as a real process, driven over a real socket as the site daemon does it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fedbus.core.protocol.layout import Layout
from fedbus.tasks.heart_disease_data import write_site_data
from fedbus.tensors.codec import decode_all_
from fedbus.tensors.digest import digest
from fedbus.training import protocol as p
from fedbus.training.frames_file import read_frames

SITE_PACKAGE = Path(__file__).parent / "site_package"
LIMIT_S = 60.0


class Daemon:
    """The other end of the trainer's socket."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket, folder: Path) -> None:
        self.process = process
        self.sock = sock
        self.folder = folder
        self.progress: list[p.Progress] = []

    def send(self, command: p.Message) -> None:
        p.send_message(self.sock, command)

    def receive(self) -> p.Message:
        while isinstance(reply := p.receive_message(self.sock), p.Progress):
            self.progress.append(reply)
        return reply

    def ask(self, command: p.Message) -> Any:
        self.send(command)
        return self.receive()

    def open(self, task: str = "stub", **options: Any) -> Any:
        local = {"steps": 3, "batch_size": 8, "learning_rate": 0.1} | options.pop("local", {})
        fields = {"task_config": {}, "data": str(self.folder)} | options
        return self.ask(
            p.Open(job="job", task=task, seed=5, site="site-a", local=local, up="fp16", chunk_bytes=1 << 20, **fields)
        )

    def load_initial(self) -> Layout:
        """Let the trainer make initial params and load them as version 0."""
        path = self.folder / "v0"
        made = self.ask(p.MakeInitial(path=str(path)))
        layout = Layout.from_dict(made.layout)
        flat = torch.zeros(layout.numel)
        decode_all_(flat, read_frames(path), layout)
        load = p.Load(version=0, digest=digest(flat), snapshot=str(path), layout=made.layout)
        assert self.ask(load) == p.Loaded(version=0)
        return layout


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Daemon]]:
    with contextlib.ExitStack() as stack:

        def start_trainer(prefix: Sequence[str] = ()) -> Daemon:
            sock, theirs = socket.socketpair()
            stack.enter_context(sock)
            with theirs:
                command = [*prefix, *trainer_command(theirs.fileno())]
                process = subprocess.Popen(command, env=environment(), pass_fds=(theirs.fileno(),))
            stack.callback(process.wait)
            stack.callback(process.kill)
            sock.settimeout(LIMIT_S)
            assert isinstance(p.receive_message(sock), p.Hello)
            return Daemon(process, sock, tmp_path)

        yield start_trainer


def trainer_command(number: int) -> list[str]:
    return [sys.executable, "-m", "fedbus.training", "--socket", str(number)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SITE_PACKAGE), "OMP_NUM_THREADS": "1"}


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for did not happen"
        time.sleep(0.01)


def test_the_whole_way_of_an_update_on_real_data(start: Callable[[], Daemon]) -> None:
    daemon = start()
    write_site_data(daemon.folder, "cleveland")

    opened = daemon.open("heart_disease")
    layout = daemon.load_initial()
    trained = daemon.ask(p.Train(path=str(daemon.folder / "update"), seed=1))
    scored = daemon.ask(p.Score(version=0))
    daemon.send(p.Close())

    assert opened == p.Opened(device=opened.device, layout_digest=layout.digest, numel=layout.numel)
    assert trained.effort.num_examples == 212
    assert trained.effort.steps == 3
    assert len(read_frames(daemon.folder / "update")) == len(trained.frame_sizes)
    assert scored.metrics.keys() == {"auc", "accuracy", "loss"}
    assert scored.num_examples == 91
    assert daemon.process.wait(LIMIT_S) == 0


def test_cancel_ends_a_long_training_and_nothing_that_comes_later(start: Callable[[], Daemon]) -> None:
    daemon = start()
    daemon.open(local={"steps": 1000}, step_delay_s=600.0)
    daemon.load_initial()

    daemon.send(p.Train(path=str(daemon.folder / "update"), seed=1))
    first = p.receive_message(daemon.sock)
    daemon.send(p.Cancel())
    cancelled = daemon.receive()
    daemon.send(p.Cancel())

    assert first == p.Progress(step=1, steps=1000, loss=1.25)
    assert cancelled == p.Cancelled(base_version=0, steps=1)
    assert not (daemon.folder / "update").exists()
    assert isinstance(daemon.ask(p.Score(version=0)), p.Scored)


def test_a_closed_socket_ends_a_step_that_never_yields(start: Callable[[], Daemon]) -> None:
    daemon = start()
    daemon.open(task_config={"mode": "block"})
    daemon.load_initial()
    daemon.send(p.Train(path=str(daemon.folder / "update"), seed=1))
    wait_until((daemon.folder / "in-step").exists)

    daemon.sock.close()

    assert daemon.process.wait(LIMIT_S) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise exists on Linux only")
def test_a_dead_parent_ends_a_step_that_holds_the_interpreter(start: Callable[..., Daemon]) -> None:
    starter = "import subprocess, sys; subprocess.Popen(sys.argv[1:], close_fds=False).wait()"
    daemon = start(prefix=[sys.executable, "-c", starter])
    daemon.open(task_config={"mode": "hold"})
    daemon.load_initial()
    daemon.send(p.Train(path=str(daemon.folder / "update"), seed=1))
    wait_until((daemon.folder / "in-step").exists)

    daemon.process.kill()

    with pytest.raises(EOFError):
        daemon.receive()


def test_errors_of_a_task_are_reported_and_the_process_lives_on(start: Callable[[], Daemon]) -> None:
    daemon = start()
    daemon.open(task_config={"mode": "error"})
    daemon.load_initial()

    in_train = daemon.ask(p.Train(path=str(daemon.folder / "update"), seed=1))
    in_evaluate = daemon.ask(p.Score(version=0))

    assert in_train.error.startswith("TaskError in Stub.train, stub_tasks.py line ")
    assert in_train.error.endswith(f"its text is in this site's log, reference {in_train.reference}")
    assert 'raise TaskError("the scanner is on fire")' in in_train.traceback
    assert in_evaluate.error.startswith("ValueError in Stub.evaluate, stub_tasks.py line ")
    assert "ValueError: no slices" in in_evaluate.traceback
    assert not in_train.fatal
    assert not in_evaluate.fatal


def test_a_task_that_leaves_the_program_is_an_error_as_any_other(start: Callable[[], Daemon]) -> None:
    daemon = start()
    daemon.open(task_config={"mode": "exit"})
    daemon.load_initial()

    failed = daemon.ask(p.Score(version=0))

    assert failed.error.startswith("SystemExit in Stub.evaluate, stub_tasks.py line ")
    assert isinstance(daemon.ask(p.Train(path=str(daemon.folder / "update"), seed=1)), p.Trained)


@pytest.mark.parametrize(("mode", "count"), [("numpy", 7), ("tensor", 7)])
def test_everything_that_counts_is_a_number_of_examples(start: Callable[[], Daemon], mode: str, count: int) -> None:
    daemon = start()
    daemon.open(task_config={"mode": mode})
    daemon.load_initial()

    trained = daemon.ask(p.Train(path=str(daemon.folder / "update"), seed=1))

    assert trained.effort.num_examples == count


def test_an_answer_that_is_none_is_fatal_at_once(start: Callable[[], Daemon]) -> None:
    daemon = start()
    daemon.open(task_config={"mode": "tuple"})
    daemon.load_initial()

    in_train = daemon.ask(p.Train(path=str(daemon.folder / "update"), seed=1))
    in_evaluate = daemon.ask(p.Score(version=0))

    assert in_train.fatal
    assert "train() returned a tuple of 2: expected a number of examples >= 1, or TrainResult(" in in_train.error
    assert in_evaluate.fatal
    assert "evaluate() returned a tuple of 3: expected Scores(" in in_evaluate.error


def test_what_cannot_be_opened_may_be_there_later_and_is_said_plainly(start: Callable[[], Daemon]) -> None:
    daemon = start()

    unknown = daemon.open("kidney")
    empty = daemon.open("heart_disease")
    nothing_open = daemon.ask(p.Score(version=0))

    assert not unknown.fatal
    assert "task 'kidney' is not installed here; installed tasks: " in unknown.error
    assert not empty.fatal
    assert empty.error.startswith("DataError in read_patients, heart_disease_data.py line ")
    assert "expected heart_disease.csv in" in empty.traceback
    assert "the first command is Open, got Score" in nothing_open.error
    assert not nothing_open.fatal


def test_what_a_task_finds_in_the_data_is_in_the_sites_log(
    start: Callable[[], Daemon], capfd: pytest.CaptureFixture[str]
) -> None:
    daemon = start()
    write_site_data(daemon.folder, "cleveland")

    daemon.open("heart_disease")

    assert "heart_disease.csv: chol: 303 values, 0 missing; from 126 to 564 mg/dL, median 241" in capfd.readouterr().err


def test_an_error_of_a_task_that_was_cancelled_means_cancelled(start: Callable[[], Daemon]) -> None:
    daemon = start()
    daemon.open(task_config={"mode": "trips"}, local={"steps": 1000}, step_delay_s=600.0)
    daemon.load_initial()

    daemon.send(p.Train(path=str(daemon.folder / "update"), seed=1))
    assert isinstance(p.receive_message(daemon.sock), p.Progress)
    daemon.send(p.Cancel())

    assert isinstance(daemon.receive(), p.Cancelled)
    assert not (daemon.folder / "update").exists()


def test_another_layout_is_fatal(start: Callable[[], Daemon]) -> None:
    daemon = start()
    daemon.open()
    daemon.load_initial()
    layout = {"tensors": [["0.weight", [6, 1, 3, 3], "float32"]]}

    failed = daemon.ask(p.Load(version=0, digest="0" * 16, snapshot=str(daemon.folder / "v0"), layout=layout))

    assert failed.fatal
    assert "job's params have 0.weight (6,1,3,3), this site's task makes (4,1,3,3)" in failed.error


def test_garbage_on_the_socket_ends_the_process(start: Callable[[], Daemon]) -> None:
    daemon = start()

    daemon.sock.sendall(b"\xff" * 8)

    assert daemon.process.wait(LIMIT_S) == 2
