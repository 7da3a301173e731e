"""A broker of three real nodes, started once: what they are, and a job that goes on while one of them is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from pathlib import Path

import psutil
import pytest

from fedbus.bench.chaos.run import ask, examine, job_spec, submit
from fedbus.bench.chaos.stage import make_data
from fedbus.broker.cluster import PrivateCluster, private_broker
from fedbus.bus import topology
from fedbus.bus.connection import Session
from fedbus.bus.stream import StreamReader
from fedbus.bus.url import BrokerUrl
from fedbus.core.protocol import events
from fedbus.core.protocol.messages import JobState
from fedbus.errors import NodeError
from fedbus.local.federation import LocalFederation, wait_until

SITES = ("site-a", "site-b")
NAMES = {"fedbus@localhost", "fedbus2@localhost", "fedbus3@localhost"}
SOON = timedelta(seconds=90)
KILL = timedelta(0)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    folder = tmp_path_factory.mktemp("cluster")
    with LocalFederation(folder, sites=SITES, cluster=partial(PrivateCluster, size=3)) as running:
        yield running


@pytest.fixture
def cluster(federation: LocalFederation) -> PrivateCluster:
    assert isinstance(federation.node, PrivateCluster)
    return federation.node


def leader_of(cluster: PrivateCluster, queue: str) -> int:
    """The number of the node that leads a queue."""
    rows = [line.split("\t") for line in cluster.ctl("list_queues", "-p", "fedbus", "name", "leader").splitlines()]
    name = next(row[1] for row in rows if row[0] == queue)
    return [node.seat.name for node in cluster.nodes].index(name) + 1


def test_its_nodes_listen_on_loopback_alone_and_every_queue_is_on_each_of_them(cluster: PrivateCluster) -> None:
    pids = [member.pid for member in cluster.status().members]
    connections = [each for pid in pids for each in psutil.Process(pid).net_connections("inet")]
    assert {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN} <= {"127.0.0.1", "::1"}
    listed = cluster.ctl("list_queues", "-p", "fedbus", "name", "members").splitlines()[1:]
    assert len(listed) >= len(topology.FEDERATION.queues)
    for line in listed:
        assert set(line.split("\t")[1].strip("[]").split(", ")) == NAMES


def test_a_login_file_names_every_node(cluster: PrivateCluster) -> None:
    url = BrokerUrl.parse(cluster.logins.path("site-a").read_text())
    assert [place.port for place in url.places] == [member.port for member in cluster.status().members]


def test_a_folder_of_three_nodes_cannot_become_smaller(cluster: PrivateCluster) -> None:
    with pytest.raises(NodeError, match="cannot become 1"):
        private_broker(cluster.base, nodes=1)
    with pytest.raises(NodeError, match="half of them is no majority"):
        private_broker(cluster.base, nodes=4)
    assert isinstance(private_broker(cluster.base), PrivateCluster)
    with pytest.raises(NodeError, match="run already"):
        private_broker(cluster.base).start()


def test_a_job_goes_on_while_the_node_that_leads_its_queue_is_killed_and_comes_back(
    federation: LocalFederation, cluster: PrivateCluster
) -> None:
    # given a job in which versions come
    aggregator = federation.start_aggregator(keep_updates=True, checkpoint_interval_s=1.0)
    for site in SITES:
        data: Path = make_data(federation.folder, site)
        federation.start_site(site, data, step_delay_s=0.5, device="cpu")
    spec = job_spec("cluster", stop={"versions": 100_000}, min_sites=1)
    job = submit(federation, spec.model_copy(update={"task_config": {"numel": 1 << 16}}))
    committed = partial(aggregator.wait_for, events.VersionCommitted.kind, within=SOON, job=job)
    committed(version=3)
    # when the node is killed that leads the queue of its updates
    victim = leader_of(cluster, topology.updates_queue(job))
    cluster.stop_node(victim, grace=KILL)
    # then versions come, without it
    before = sum(line["event"] == events.VersionCommitted.kind for line in aggregator.events())
    committed(version=before + 5)
    assert cluster.process(victim) is None
    # and when it is started again it is one of them
    cluster.start(die_with_parent=True)
    assert all(node.answers() for node in cluster.nodes)
    before = sum(line["event"] == events.VersionCommitted.kind for line in aggregator.events())
    committed(version=before + 3)
    # and nothing was lost or counted twice
    ask(federation, lambda client: client.abort(job, None))
    aggregator.wait_for(events.JobEnded.kind, within=SOON, job=job)
    wait_until(lambda: not (federation.folder / "aggregator" / "spool" / job).exists(), within=SOON, what="its end")
    for daemon in federation.daemons:
        daemon.stop()
    found = examine(federation, job, SITES, state=JobState.ABORTED)
    assert found.ok, found.sentences


async def test_a_stream_is_read_on_at_another_node_without_loss_or_repetition(cluster: PrivateCluster) -> None:
    # given a reader of the events, which has read one
    url = BrokerUrl.parse(cluster.url("submitter"))
    async with (
        asyncio.timeout(SOON.total_seconds()),
        Session(url.with_password(), name="reader") as session,
        aclosing(StreamReader(session, topology.EVENTS).follow("first")) as records,
    ):
        first = await anext(records)
        # when the node that it reads at is killed
        number = [place.port for place in url.places].index(session.place.port) + 1
        await asyncio.to_thread(cluster.stop_node, number, grace=KILL)
        rest = [(await anext(records)).offset for _ in range(8)]
    # then it reads on at another one
    assert session.place.port != url.places[number - 1].port
    assert sorted({first.offset, *rest}) == [first.offset, *rest]
