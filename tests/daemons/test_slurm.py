"""A site as a SLURM job: the real script, a stand-in for SLURM's two commands; preempted, queued again, back."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from fedbus.core.rules.facts import Folded
from fedbus.tasks.heart_disease import write_site_data

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "site.sbatch"
SOON = timedelta(seconds=30)
SRUN = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n'
SCONTROL = '#!/bin/sh\necho "$*" >>"$SLURM_SAID"\n'


class Cluster:
    """Runs the script as SLURM would: `start` gives it a node, `preempt` takes it back."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.log, self.said = folder / "site.log", folder / "said"
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        more = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711", "SLURM_SAID": str(self.said)}
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("FEDBUS_")} | more | env

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(["bash", str(SCRIPT)], env=self.env, stdout=log, stderr=log, start_new_session=True)

    def preempt(self, batch: subprocess.Popen[bytes]) -> int:
        batch.send_signal(signal.SIGTERM)
        return batch.wait(SOON.total_seconds())


@pytest.fixture
def cluster(house, tmp_path):
    write_site_data(tmp_path / "data", "cleveland")
    settings = {
        "FEDBUS_HOME": str(tmp_path / "home"),
        "FEDBUS_BROKER_URL": house.running.url("cleveland"),
        "FEDBUS_SITE_NAME": "cleveland",
        "FEDBUS_SITE_DATA": str(tmp_path / "data"),
        "FEDBUS_STEP_DELAY_S": "0.05",
    }
    return Cluster(tmp_path, settings)


def test_a_site_that_is_preempted_comes_back_and_nothing_counts_twice(house, cluster):
    house.start_aggregator()
    # given a site that trains as a job of the cluster
    batch = cluster.start()
    job = house.submit(stop={"versions": 12})
    house.aggregator.wait_for("update-folded", site="cleveland")
    # when the node is taken back
    assert cluster.preempt(batch) == 0
    # then it has left in order, and is queued again
    house.aggregator.wait_for("site-left", site="cleveland", job=job)
    assert cluster.said.read_text() == "requeue 4711\n"
    # and when it runs again the job goes on to its end
    batch = cluster.start()
    house.ended(job)
    ids = [fact.update_id for fact in house.facts(job) if isinstance(fact, Folded)]
    assert len(ids) == len(set(ids)) == 12
    assert cluster.preempt(batch) == 0


def test_a_wrong_setting_ends_the_job_and_is_not_queued_again(cluster):
    cluster.env["FEDBUS_SITE_NAME"] = "Not A Name"
    batch = cluster.start()
    assert batch.wait(SOON.total_seconds()) == 2
    assert not cluster.said.exists()
    assert "site_name" in cluster.log.read_text()
