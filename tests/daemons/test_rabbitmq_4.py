"""A real RabbitMQ 4: it starts again and again, whoever was enrolled meanwhile, and a job outlives its sudden end.

`deploy/rabbitmq/install-4` makes it, which needs root, debootstrap and a Debian mirror.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedbus.broker.node import PrivateNode
from fedbus.local.federation import LocalFederation

PROGRAMS = Path("/var/cache/fedbus/rabbitmq-4/bin")
AT_ONCE = timedelta(0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PrivateNode]:
    """A private node of RabbitMQ 4, not started yet."""
    if os.getuid() != 0:
        pytest.skip("a RabbitMQ 4 in a folder of its own needs root")
    if not (PROGRAMS / "rabbitmq-server").exists():
        pytest.skip("no RabbitMQ 4 here: deploy/rabbitmq/install-4 makes one where there is debootstrap and a mirror")
    node = PrivateNode(tmp_path / "four", programs=PROGRAMS)
    yield node
    node.stop(grace=AT_ONCE)
    shutil.rmtree(node.base, ignore_errors=True)


def start(node: PrivateNode, *sites: str) -> None:
    node.start(sites=sites, die_with_parent=True)


def enrolled(node: PrivateNode) -> set[str]:
    names = node.ctl("list_queues", "-p", "fedbus", "name").split()
    return {name.removeprefix("fedbus.site.") for name in names if name.startswith("fedbus.site.")}


def test_it_starts_again_after_a_clean_stop_and_a_kill_and_knows_who_was_enrolled_meanwhile(node, make_house):
    # given a federation whose aggregator has made what it needs, on a node that takes definitions in at every start
    start(node, "mercy")
    assert node.ctl("version").startswith("4.")
    with LocalFederation(node.base.parent / "fed", url_for=node.url) as running:
        make_house(running).start_aggregator().wait_for("aggregator-ready")
    # when sites are enrolled while it runs and while it does not
    node.add_site("ucsf")
    node.stop()
    start(node, "hungary")
    node.stop(grace=AT_ONCE)
    start(node, "cleveland")
    node.stop(grace=AT_ONCE)
    start(node)
    # then it always starts, and they all have their queue
    assert enrolled(node) == {"mercy", "ucsf", "hungary", "cleveland"}


def test_a_job_outlives_the_sudden_end_of_its_broker(node, make_house):
    # given real patients of two hospitals
    start(node, "cleveland", "hungary")
    with LocalFederation(node.base.parent / "fed", url_for=node.url) as running:
        house: Any = make_house(running)
        house.start_aggregator()
        for name in ("cleveland", "hungary"):
            house.start_site(name, step_delay_s=0.02)
        local = {"steps": 10, "batch_size": 16, "learning_rate": 0.1}
        task = {"task": "heart_disease", "task_config": {}, "local": local}
        job = house.submit(**task, min_sites=2, stop={"versions": 30})
        house.committed(5)
        # when the broker is killed in the middle and started again, with one more site
        node.stop(grace=AT_ONCE)
        house.aggregator.wait_for("broker lost")
        start(node, "switzerland")
        # then the job ends as if nothing had been, and nothing was folded twice
        house.ended(job)
        folded = [fact.update_id for fact in house.folded(job)]
        assert len(folded) == len(set(folded))
        # and who watches has seen all of it, for the events still come into their stream
        watched = house.fedbus("watch", job).out
        assert "version 1 " in watched
        assert "could not be reached" in watched
        assert "finished" in watched
