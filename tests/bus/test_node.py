"""The private RabbitMQ node: its files, its life, and the words it finds when it cannot start."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pika
import psutil
import pytest
from pika.exceptions import ChannelClosedByBroker

from fedbus.broker.environment import CTL_PORTS, Ports, find_rabbitmq
from fedbus.broker.node import PrivateNode
from fedbus.broker.process import ProcessId, signals_held, spawn
from fedbus.bus import topology
from fedbus.errors import NodeError
from fedbus.local.interrupts import Interrupted, Interrupts
from tests.acts import lasting
from tests.waits import SOON

NODE_OF_ARGV = (
    "import sys, pathlib; from fedbus.broker.node import PrivateNode; node = PrivateNode(pathlib.Path(sys.argv[1]))"
)


def processes(node: PrivateNode) -> list[ProcessId]:
    record = json.loads((node.base / "node.json").read_text())
    return [ProcessId(**record[name]) for name in ("epmd", "broker") if record[name]]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------------ a running node


def test_its_status_says_where_it_runs(shared_node):
    status = shared_node.node.status()
    assert status.running
    assert ProcessId.of(status.pid)
    assert {"aggregator", "submitter", "hungary"} <= set(status.logins)


def test_it_listens_on_loopback_only(shared_node):
    listening = [
        connection.laddr.ip
        for process in processes(shared_node.node)
        for connection in psutil.Process(process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_it_leaves_nothing_in_the_folder_of_whoever_started_it(shared_node):
    # where Erlang writes the dump of a crash
    for process in processes(shared_node.node):
        assert psutil.Process(process.pid).cwd().startswith(str(shared_node.node.base))


def test_its_secrets_are_readable_by_their_owner_only(shared_node):
    base = shared_node.node.base
    assert mode(base) & 0o077 == 0
    assert mode(base / "home" / ".erlang.cookie") == 0o400
    assert {mode(path) for path in (base / "logins").iterdir()} == {0o600}


def test_a_second_start_in_the_same_folder_is_refused(shared_node):
    with pytest.raises(NodeError, match=r"already runs .* `fedbus broker stop`"):
        PrivateNode(shared_node.node.base).start()


def test_a_site_enrolled_later_may_speak_for_itself_only(shared_node):
    # given a node that runs
    path = shared_node.node.add_site("late-site")
    # when the new site logs in
    connection = pika.BlockingConnection(lasting(path.read_text().strip()))
    channel = connection.channel()
    channel.confirm_delivery()
    # then its own name is accepted, any other refused
    channel.basic_publish(topology.SITES, "late-site.join", b"{}", mandatory=True)
    with pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
        channel.basic_publish(topology.SITES, "hungary.join", b"{}")
    connection.close()


@pytest.mark.parametrize(
    ("site", "words"), [("aggregator", "cannot be named 'aggregator'"), ("No Good", "must be 1 to 40")]
)
def test_a_site_with_a_bad_name_is_not_enrolled(shared_node, site, words):
    with pytest.raises(NodeError, match=words):
        shared_node.node.add_site(site)
    assert site == "aggregator" or site not in shared_node.node.status().logins


def test_an_unknown_login_has_no_url(shared_node):
    with pytest.raises(NodeError, match="fedbus broker add-site nobody"):
        shared_node.node.url("nobody")


# ------------------------------------------------------------------ start and stop


def test_another_process_stops_it_and_a_restart_keeps_port_and_logins(throw_away_node):
    # given a node that runs
    node = throw_away_node()
    node.start(sites=["site-a"])
    running, url = processes(node), node.url("site-a")
    # when somebody else stops it
    command = [sys.executable, "-c", f"{NODE_OF_ARGV}; print(node.stop())", str(node.base)]
    stopped = subprocess.run(command, capture_output=True, text=True, check=True)
    # then nothing of it is left
    assert stopped.stdout == "True\n"
    assert len(running) == 2
    assert not any(process.alive for process in running)
    assert not node.status().running
    # and it comes back as it was
    node.start()
    assert node.url("site-a") == url
    pika.BlockingConnection(lasting(url)).close()


def test_it_dies_with_its_parent_when_asked_to(throw_away_node):
    # given a node started by a program that is then killed without a chance to clean up
    node = throw_away_node()
    code = f"{NODE_OF_ARGV}; node.start(die_with_parent=True); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(node.base)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        running = processes(node)
        parent.send_signal(signal.SIGKILL)
    # then broker and epmd end with it
    assert len(running) == 2
    assert all(process.wait(SOON) for process in running)


@pytest.mark.parametrize("started", [1, 2], ids=["epmd", "broker"])
def test_a_signal_while_its_process_starts_leaves_nothing_behind(throw_away_node, monkeypatch, started):
    # given a signal that comes when the process runs and nobody knows of it yet
    node, born = throw_away_node(), []

    def of(pid):
        found = ProcessId.of(pid)
        born.append(found)
        if len(born) == started:
            signal.raise_signal(signal.SIGTERM)
        return found

    monkeypatch.setattr("fedbus.broker.launch.spawn", lambda *args, **kwargs: of(spawn(*args, **kwargs).pid))
    # when
    with Interrupts(), pytest.raises(Interrupted):
        node.start()
    # then
    assert len(born) == started
    assert not any(process.alive for process in born)


def test_no_two_ports_of_a_node_are_the_same(monkeypatch):
    # given draws of which the second lies among the ports that follow from the first
    draws = itertools.cycle([23_000, 23_005, 24_000])
    monkeypatch.setattr("fedbus.broker.process.random.randint", lambda low, high: next(draws))
    ports = Ports.choose(None)
    taken = [ports.amqp, ports.dist, ports.epmd, *range(ports.ctl, ports.ctl + CTL_PORTS)]
    assert len(taken) == len(set(taken))


def test_signals_that_are_held_come_in_the_end_and_only_once():
    went_on = []

    def held() -> None:
        with signals_held():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            went_on.append(True)

    with Interrupts(), pytest.raises(Interrupted, match="SIGTERM"):
        held()
    assert went_on == [True]


def test_stop_of_a_node_that_never_ran_changes_nothing(tmp_path):
    assert PrivateNode(tmp_path / "never").stop() is False
    assert not (tmp_path / "never").exists()


def test_a_stale_record_whose_pid_belongs_to_somebody_else_kills_nobody(tmp_path):
    # given a record from before a reboot: our own pid, another start time
    node = PrivateNode(tmp_path)
    alien = {"pid": os.getpid(), "started": 1}
    ports = {"amqp": 1, "dist": 1, "epmd": 1, "ctl": 1}
    (tmp_path / "node.json").write_text(json.dumps({"ports": ports, "epmd": alien, "broker": alien, "since": 0.0}))
    # when
    ran = node.stop(grace=timedelta(0))
    # then we are still here
    assert ran is False


def test_a_process_lives_as_long_as_one_of_its_threads():
    """A broker that is killed holds its port until then, and a start right after found it in use."""
    # given a process whose first thread has ended
    code = (
        "import ctypes, sys, threading; threading.Thread(target=sys.stdin.read).start(); print('on', flush=True);"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "on\n"
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            pass
        # then it lives until the other one has
        found = ProcessId.of(process.pid)
        assert found is not None
        assert found.alive
        process.stdin.close()
        assert found.wait(SOON)


# ------------------------------------------------------------------ what can go wrong


def test_a_port_in_use_is_named(throw_away_node):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(NodeError, match=rf"port {port} .* in use .* --port"):
            throw_away_node().start(port=port)


def test_a_missing_rabbitmq_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeError, match=r"apt-get install rabbitmq-server.* FEDBUS_BROKER_URL"):
        find_rabbitmq(places=[tmp_path])


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match=r"cannot be written: Not a directory; .* --dir"):
        PrivateNode(tmp_path / "file" / "node").start()


def test_a_broker_that_ends_at_once_shows_the_end_of_its_log(throw_away_node):
    node = throw_away_node()
    node.base.mkdir()
    (node.base / "advanced.config").write_text("this is no Erlang term")
    with pytest.raises(NodeError, match=r"(?s)ended while it started; the end of its log .*:\n.*advanced_config"):
        node.start()
    assert processes(node) == []


def test_a_damaged_record_is_explained(tmp_path):
    (tmp_path / "node.json").write_text("{")
    with pytest.raises(NodeError, match=r"node\.json is damaged"):
        PrivateNode(tmp_path).status()


def test_what_is_started_keeps_nothing_open_of_who_started_it(tmp_path: Path) -> None:
    # given a pipe that our children would inherit, as from a shell that waits for its end
    read, write = os.pipe()
    os.set_inheritable(write, True)
    # when a process is started that outlives us, and we close our end
    process = spawn(["sleep", "60"], env=os.environ, output=tmp_path / "log", die_with_parent=False)
    os.close(write)
    # then nobody holds the other
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""
    os.close(read)
    process.end(timedelta(0))
