"""A site in another language, written from `deploy/asyncapi.yaml`: it joins a real job, and its updates are folded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedbus.tasks.heart_disease import write_site_data

ROOT = Path(__file__).parents[2]
MODULES = Path(sys.prefix) / "node" / "node_modules"
JOB = {
    "task": "heart_disease",
    "task_config": {},
    "local": {"steps": 10, "batch_size": 32, "learning_rate": 0.2},
    "strategy": {"kind": "sync"},
}


@contextmanager
def foreign_site(url: str, data: Path, said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The site as a process ; killed if it does not leave."""
    paths = os.pathsep.join([str(MODULES), *os.environ.get("NODE_PATH", "").split(os.pathsep)])
    with said.open("wb") as out:
        process = subprocess.Popen(
            ["node", ROOT / "deploy/foreign-site/site.js", "--data", data],
            env={**os.environ, "FEDBUS_BROKER_URL": url, "NODE_PATH": paths},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def events(said: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in said.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == kind]


def test_updates_of_a_site_in_another_language_are_folded_with_those_of_ours(house, tmp_path):
    house.start_aggregator()
    said, data = tmp_path / "foreign.log", tmp_path / "hungary"
    write_site_data(data, "hungary")
    with foreign_site(house.running.url("hungary"), data, said) as foreign:
        alone = house.submit(**JOB, sites=["hungary"], stop={"versions": 1})
        house.start_site("cleveland")
        job = house.submit(**JOB, min_sites=2, stop={"versions": 5})
        house.ended(alone)
        house.ended(job)
        scored = house.job(job)["result"]["scores"]["hungary"]["metrics"]
        foreign.send_signal(signal.SIGTERM)
        left = foreign.wait(timeout=30)

    folded = Counter(fact.update_id.site for fact in house.folded(job))
    assert left == 0, said.read_text()
    assert folded["hungary"] >= 4, said.read_text()
    assert folded["cleveland"] >= 4
    assert all(fact.norm > 0 and fact.effort.num_examples > 100 for fact in house.folded(job))
    assert house.refused_in_time(job) == house.refused_in_time(alone) == []
    assert len(events(said, "version-held")) == 2 + 6
    assert events(said, "record") == events(said, "control-message") == []
    assert set(scored) >= {"auc", "accuracy", "loss"}
    assert house.site("hungary")["reason"] == "stopped"
