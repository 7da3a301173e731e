"""A broker whose disk is lost: with the definitions it comes back empty, and the federation works again by itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fedbus.local.federation import LocalFederation


def test_a_broker_that_comes_back_empty_has_what_new_jobs_need(tmp_path: Path, make_house: Any) -> None:
    with LocalFederation(tmp_path / "fed", sites=("cleveland",)) as running:
        # given a federation without a job
        house = make_house(running)
        house.start_aggregator().wait_for("aggregator-ready")
        house.start_site("cleveland").wait_for("site-ready")
        # when the broker loses its disk and is started again
        running.kill_broker()
        house.aggregator.wait_for("broker lost")
        shutil.rmtree(running.node.base / "data")
        running.node.start(die_with_parent=True)
        house.aggregator.wait_for("broker-back")
        # then a job is trained, and who watches sees it
        job = house.submit()
        house.ended(job)
        watched = house.fedbus("watch", job).out
        assert "job-submitted" in watched
        assert "finished" in watched
