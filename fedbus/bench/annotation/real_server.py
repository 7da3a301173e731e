"""The annotation loop against a real MONAI Label server: `deploy/monailabel-check`.

An untrained bundle is put into the server's app, annotators are played over the server's own API, a site watches it,
and one job trains. Checked is what the contract fake of the tests stands for: only final labels come, one that is
overwritten in place comes again, the model that is handed back is what the server then proposes with.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import requests
import torch

from fedbus.bench import jobs
from fedbus.bench.annotation.plans import KIDNEYS, LOCAL
from fedbus.bench.figures import lines_of
from fedbus.export.bundle import write_bundle
from fedbus.export.task_model import TaskModel
from fedbus.imaging.kidneys import write_kidneys
from fedbus.imaging.studies import Study, find_studies
from fedbus.local.federation import Daemon, LocalFederation, wait_until
from fedbus.tasks.segmentation.task import Segmentation

MODEL = "fedbus_kidneys"
# without a spacing: MONAI 1.6's Spacingd fails on what MONAI Label 0.8.5 puts beside the image (`image_path`)
CONFIG = {key: value for key, value in KIDNEYS.items() if key != "spacing"}
STUDIES, VERSIONS = 10, 20
START = timedelta(minutes=2)
LONG = timedelta(minutes=5)
SAMPLE_APP = Path("monailabel/sample-apps/monaibundle")


class LabelApi:
    """What an annotator's program asks a server for."""

    def __init__(self, url: str) -> None:
        self.url = url

    def is_up(self) -> bool:
        try:
            return requests.get(f"{self.url}/info/", timeout=5).ok
        except requests.RequestException:
            return False

    def submit(self, study: str, label: Path, *, tag: str = "final") -> None:
        """As 3D Slicer's "Submit label"."""
        with label.open("rb") as file:
            answer = requests.put(
                f"{self.url}/datastore/label",
                params={"image": study, "tag": tag},
                files={"label": (label.name, file)},
                data={"params": json.dumps({"label_info": [{"name": "kidney"}, {"name": "tumour"}]})},
                timeout=60,
            )
        answer.raise_for_status()

    def proposal(self, study: str, to: Path) -> Path:
        """The server's own segmentation of a study, as it proposes it to an annotator."""
        answer = requests.post(f"{self.url}/infer/{MODEL}", params={"image": study, "output": "image"}, timeout=120)
        answer.raise_for_status()
        to.write_bytes(answer.content)
        return to


def main() -> int:
    """Run the loop and say what was checked; the exit code is 0 when all of it held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, type=Path, help="the virtual environment with monailabel")
    parser.add_argument("--port", default=8777, type=int)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedbus-monailabel-") as name:
        folder = Path(name)
        write_kidneys(folder / "made", studies=STUDIES, seed=5)
        studies = list(find_studies(folder / "made" / "site-a").labelled)
        for study in studies:
            (folder / "studies").mkdir(exist_ok=True)
            shutil.copyfile(study.image, folder / "studies" / f"{study.id}.nii.gz")
        _install_bundle(given.server / SAMPLE_APP, folder / "app")
        with _server(given.server, folder, given.port) as api:
            _loop(api, folder, studies)
    _say("the annotation loop held against the real server")
    return 0


def _loop(api: LabelApi, folder: Path, studies: list[Study]) -> None:
    unseen, annotated = studies[-1], studies[:-1]
    before = _dice(api.proposal(unseen.id, folder / "before.nii.gz"), unseen)
    _say(f"Dice of the server's proposal for a study that nobody annotates, untrained: {before:.3f}")
    with LocalFederation(folder / "fed", sites=("mercy",)) as federation:
        aggregator = federation.start_aggregator()
        aggregator.wait_for("aggregator-ready", within=LONG)
        source = {"kind": "monailabel", "url": api.url, "poll_s": 2, "model": MODEL, "hand_back_every": 4}
        site = federation.start_site("mercy", folder / "data", source=json.dumps(source), status_interval_s=1)
        spec = {"name": "check", "task": "segmentation", "task_config": CONFIG, "local": LOCAL}
        job = jobs.submit(federation, {**spec, "min_new_labels": 4, "stop": {"versions": VERSIONS}})
        for study in annotated[:3]:
            api.submit(study.id, _label(study))
        api.submit(annotated[3].id, _label(annotated[3]), tag="original")
        _holds(aggregator, "job-waiting", "3 of 4", "a proposal that was saved is not counted: 3 of 4 labels")
        api.submit(annotated[3].id, _label(annotated[3]))
        aggregator.wait_for("job-running", within=LONG, job=job)
        _say("the job began by itself with the fourth final label")
        for study in annotated[4:]:
            api.submit(study.id, _label(study))
        _overwritten(folder, site, annotated)
        aggregator.wait_for("job-ended", within=LONG, job=job, state="finished")
        handed = site.wait_for("version-handed-back", within=LONG, version=VERSIONS)
    given = len(lines_of(site, "version-handed-back"))
    _say(f"{given} versions were handed back over PUT /model, the last is version {handed['version']}")
    after = _dice(api.proposal(unseen.id, folder / "after.nii.gz"), unseen)
    _say(f"Dice of the server's proposal for the same study now: {after:.3f}")
    if after < before + 0.3:
        raise SystemExit("the server's proposals did not get better")


def _overwritten(folder: Path, site: Daemon, annotated: list[Study]) -> None:
    """A label's file is overwritten in the server's folder, with the label of no other size."""

    def taken() -> dict[str, Any]:
        path = folder / "fed" / "sites" / "mercy" / "source" / "taken.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    _until(lambda: len(taken().get("studies", {})) == len(annotated), "all labels to be taken", site)
    number = taken()["newest"]
    place = folder / "studies" / "labels" / "final" / f"{annotated[0].id}.nii.gz"
    found = nibabel.load(place)
    array = np.asarray(found.dataobj).copy()
    array[0, 0, 0] = 1
    beside = place.with_name("beside.nii.gz")
    nibabel.save(nibabel.Nifti1Image(array, found.affine, found.header), folder / beside.name)
    os.replace(folder / beside.name, place)
    _until(lambda: taken()["newest"] > number, "a label that was overwritten on the server's disk", site)
    _say("a label that was overwritten on the server's disk came again")


def _install_bundle(sample: Path, app: Path) -> None:
    """The sample app of MONAI Label with one bundle, whose network is the job's and not trained."""
    shutil.copytree(sample, app)
    bundle = app / "model" / MODEL
    bundle.mkdir(parents=True)
    torch.manual_seed(0)
    model = TaskModel(
        task=Segmentation, network=Segmentation.network(CONFIG).eval(), example=Segmentation.example_input(CONFIG)
    )
    card = {"job": MODEL, "version": 0, "task": "segmentation", "params": {}, "provenance": {}, "privacy": ""}
    _say(write_bundle(model, CONFIG, bundle, card=card))


@contextmanager
def _server(venv: Path, folder: Path, port: int) -> Iterator[LabelApi]:
    command = [str(venv / "bin" / "monailabel"), "start_server", "--app", str(folder / "app")]
    command += ["--studies", str(folder / "studies"), "--host", "127.0.0.1", "--port", str(port)]
    for name, value in (("models", MODEL), ("zoo_source", "local"), ("skip_trainers", "true"), ("sam2", "false")):
        command += ["--conf", name, value]
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"MONAI_LABEL_AUTH_ENABLE": "false", "OMP_NUM_THREADS": "1", "PATH": f"{venv / 'bin'}:{env['PATH']}"}
    log = folder / "server.log"
    api = LabelApi(f"http://127.0.0.1:{port}")
    began = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until(api.is_up, within=START, what="the server", or_else=lambda: log.read_text(errors="replace")[-3000:])
        _say(f"MONAI Label is up after {time.monotonic() - began:.0f} s")
        yield api
    except BaseException:
        print(log.read_text(errors="replace")[-6000:], file=sys.stderr)
        raise
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def _dice(found: Path, study: Study) -> float:
    ours = np.asarray(nibabel.load(found).dataobj).squeeze() > 0
    true = np.asarray(nibabel.load(_label(study)).dataobj) > 0
    if ours.shape != true.shape:
        raise SystemExit(f"the proposal has shape {ours.shape}, the study {true.shape}")
    return float(2 * (ours & true).sum() / max(1, ours.sum() + true.sum()))


def _label(study: Study) -> Path:
    if study.label is None:
        raise SystemExit(f"{study.image} has no label")
    return study.label


def _holds(daemon: Daemon, event: str, words: str, text: str) -> None:
    _until(lambda: any(words in str(line.get("text")) for line in lines_of(daemon, event)), text, daemon)
    _say(text)


def _until(true: Callable[[], bool], what: str, daemon: Daemon) -> None:
    wait_until(true, within=LONG, what=what, or_else=daemon.last_words)


def _say(text: str) -> None:
    print(f"monailabel-check: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
