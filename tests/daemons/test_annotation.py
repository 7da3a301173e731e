"""The annotation loop with real daemons: labels come while a job waits and trains, and the model goes back."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fedbus.bench.annotation.label_server import LabelFolder, LabelServer, served
from fedbus.local.federation import Daemon, wait_until
from tests.waits import SOON

QUICK = {"status_interval_s": 0.3}
LOCAL = {"steps": 1, "batch_size": 1, "learning_rate": 0.1, "evaluate": True}
ENDLESS = {"versions": 100_000}


class Hospital:
    """A site that watches a MONAI Label server."""

    def __init__(self, house: Any, folder: Path) -> None:
        self.house = house
        self.studies = LabelFolder(folder / "studies")
        self.server = LabelServer(self.studies)
        self.data = folder / "data"
        self.daemon: Daemon | None = None

    def start(self, url: str, *, step_delay_s: float = 0.05, **source: object) -> Daemon:
        settings = {"kind": "monailabel", "url": url, "poll_s": 1.0, **source}
        self.daemon = self.house.start_site(
            "cleveland", data=self.data, source=json.dumps(settings), step_delay_s=step_delay_s, **QUICK
        )
        return self.daemon

    def annotate(self, *names: str, size: int = 3) -> None:
        for name in names:
            if name not in self.studies.objects:
                self.studies.add_image(name)
            self.studies.submit(name, size=size)

    def submit(self, **keys: object) -> str:
        spec = {"task": "annotated", "task_config": {}, "local": LOCAL, "stop": ENDLESS} | keys
        return str(self.house.submit(**spec))

    def trained_on(self, job: str) -> int:
        """Examples behind the newest update."""
        folded = self.house.folded(job)
        return int(folded[-1].effort.num_examples) if folded else 0

    def waits(self, true: Any, what: str) -> Any:
        return wait_until(true, within=SOON, what=what, or_else=lambda: self.daemon.last_words() if self.daemon else "")


@pytest.fixture
def hospital(house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    folders = [str(Path(__file__).with_name("site_package")), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
    house.start_aggregator()
    return Hospital(house, tmp_path)


@pytest.fixture
def url(hospital: Hospital) -> Iterator[str]:
    with served(hospital.server) as url:
        yield url


def test_a_job_waits_for_labels_trains_on_old_and_new_ones_and_gives_its_model_back(hospital: Hospital, url: str):
    # given a site without any data, and a job that waits for labels
    site = hospital.start(url, model="kidney", model_task="annotated", hand_back_every=5)
    job = hospital.submit(min_new_labels=3, stop=ENDLESS | {"wall_time_s": 3600.0})
    house = hospital.house
    hospital.waits(lambda: "0 of 3 are there (cleveland 0)" in house.job(job)["says"], "the job to say what it misses")
    assert "waiting for the first labels" in house.job(job)["says"]
    hospital.annotate("a", "b")
    hospital.waits(lambda: "2 of 3 are there (cleveland 2)" in house.job(job)["says"], "two labels")
    assert house.job(job)["state"] == "waiting for sites"
    # when the third is there it begins by itself, with all three
    hospital.annotate("c")
    hospital.waits(lambda: hospital.trained_on(job) == 3, "a training on three labels")
    # and when another one comes, and one is corrected, it goes on with four, in the same process
    hospital.annotate("d")
    hospital.annotate("a", size=5)
    hospital.waits(lambda: hospital.trained_on(job) == 4, "a training on four labels")
    assert len({event["pid"] for event in site.events() if event["event"] == "trainer-ready"}) == 1
    hospital.waits(lambda: house.job(job)["sites"]["cleveland"]["new_labels"] == 0, "nothing new to be left")
    came = [event["text"] for event in house.aggregator.events() if event["event"] == "labels-came"]
    assert came[0].startswith("cleveland has ")
    # and the server has a model of this job, whole
    hospital.waits(lambda: "kidney" in hospital.server.models, "a model at the server")
    state = torch.load(io.BytesIO(hospital.server.models["kidney"]), weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"weight": (1, 2), "bias": (1,)}


def test_the_last_version_is_given_back_when_training_is_over(hospital: Hospital, tmp_path: Path) -> None:
    place = tmp_path / "bundle" / "models" / "model.pt"
    place.parent.mkdir(parents=True)
    torch.save({"model": torch.nn.Linear(2, 1).state_dict()}, place)
    hospital.annotate("a")
    with served(hospital.server) as url:
        site = hospital.start(url, model_file=str(place), model_task="annotated", hand_back_every=1000)
        job = hospital.submit(stop={"versions": 3})
        hospital.house.ended(job)
        site.wait_for("version-handed-back", job=job, version=3)
    params = hospital.house.folder / "params.safetensors"
    assert hospital.house.fedbus("get", job, "--version", "last", "--to", str(params)).code == 0
    assert torch.equal(load_file(params)["weight"], torch.load(place, weights_only=True)["weight"])


def test_a_source_that_hangs_is_killed_said_once_and_costs_the_job_nothing(hospital: Hospital) -> None:
    hospital.data.mkdir()
    hospital.annotate("a")
    (hospital.data / "labels").mkdir()
    (hospital.data / "labels" / "old.nii.gz").write_bytes(b"data that were here before")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site = hospital.start(f"http://127.0.0.1:{silent.getsockname()[1]}", pass_limit_s=1, timeout_s=60)
        job = hospital.submit(stop={"versions": 5})
        hospital.house.ended(job)
        site.wait_for("source-trouble", kind="too-slow")
