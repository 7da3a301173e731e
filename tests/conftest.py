"""A real RabbitMQ for every test that asks for it: one private node per test run, a fresh virtual host per test.

`vhost` is on a node with passwords, `provisioned` on one that `fedbus provision` made the files of: TLS and
certificates alone. Whatever takes a Federation runs on both.

The first test process that needs the node starts it, with the kernel's promise that it dies with that process. Every
process that uses it holds a shared file lock; the starter waits for the exclusive one before it stops the node, so the
last one out closes the door, and a process that died does not keep it open.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any

import hypothesis
import pytest
import structlog

from fedbus.broker.node import PrivateNode
from fedbus.broker.process import free_port
from fedbus.local.provisioned import kit_of, provision_here
from fedbus.provision.federation import FederationFolder
from fedbus.provision.federation_file import BrokerPart
from fedbus.runtime.collector import USUAL

SITES = ("site-a", "site-b", "site-c", "site-d", "cleveland", "hungary", "switzerland", "va-long-beach")
TRAINING = ("local.steps", "local.batch_size", "local.learning_rate", "local.evaluate", "local.proximal_mu")
ALLOWED = {
    "synthetic": (*TRAINING, *(f"task_config.{key}" for key in ("numel", "tensors", "step_s"))),
    "heart_disease": TRAINING,
}
# Files that take minutes, then rooms whose tests start daemons or brokers: whoever comes last shall be done soon.
LONG = (
    "bench/test_chaos_run.py",
    "daemons/test_what_may_pass.py",
    "daemons/test_replay_of_a_job.py",
    "daemons/test_segmentation.py",
    "daemons/test_crashes.py",
    "daemons/test_strategies_on_the_bus.py",
    "daemons/test_sealed_model_log.py",
    "daemons/test_compare.py",
    "daemons/test_clocks.py",
    "bench/test_demo.py",
    "daemons/test_broker_alarm.py",
    "daemons/test_slow_link.py",
    "bench/test_time_to_target.py",
    "bus/test_enrolment.py",
    "daemons/",
    "bench/",
    "bus/",
    "doctor/",
    "provision/",
    "trust/",
    "aggregator/",
)
VHOSTS_AT_ONCE = 10  # one import of ten costs about as much as three of one
# A queue writes its statistics down every 5 s, also one whose test is long over: a tenth of a core for 100 federations.
RARE_STATISTICS = "application:set_env(rabbit, quorum_tick_interval, 60000)."

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("fedbus", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("fedbus")

# A run in the background of a script ignores SIGINT from the start, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


gc.set_threshold(100_000, 20, 50)  # to collect 6,000 tests makes objects that stay


def _configured(configure: Callable[..., None], **how: Any) -> None:
    """A logger that keeps how it was configured first would keep it for all tests of this process that come after."""
    configure(**how | {"cache_logger_on_first_use": False})


structlog.configure = partial(_configured, structlog.configure)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; otherwise the order stays."""
    tests = Path(__file__).parent
    ranks: dict[Path, int] = {}
    for item in items:
        name = item.path.relative_to(tests).as_posix() if item.path.is_relative_to(tests) else ""
        ranks.setdefault(item.path, next((n for n, long in enumerate(LONG) if name.startswith(long)), len(LONG)))
    items.sort(key=lambda item: ranks[item.path])


def pytest_collection_finish() -> None:
    """What was collected stays: Python need not look through it for garbage."""
    gc.freeze()
    gc.set_threshold(*USUAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """One fresh virtual host with the whole topology; `url(login)` for aggregator, submitter and every site.

    folder: what `fedbus provision` wrote, on the node that runs from it.
    """

    node: PrivateNode
    vhost: str
    folder: Path | None = None

    def url(self, login: str) -> str:
        return self.node.url(login, vhost=self.vhost)

    def kit(self, login: str) -> Path | None:
        """The kit of a login; None where passwords log in."""
        return None if self.folder is None else kit_of(self.folder, login)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class SharedNode:
    """A node of this test run, shared by its processes through files in `folder`; `start` makes it run."""

    def __init__(self, folder: Path, start: Callable[[PrivateNode], object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.node = PrivateNode(folder / "node")
        self.users: IO[str] = (folder / "users").open("a")
        self.owner = False
        with locked(folder / "lock"):
            fcntl.flock(self.users, fcntl.LOCK_SH)
            if not self.node.status().running:
                shutil.rmtree(self.node.base, ignore_errors=True)
                (folder / "next").write_text("0")
                start(self.node)
                self.node.ctl("eval", RARE_STATISTICS)
                self.owner = True

    def fresh_vhost(self) -> str:
        with locked(self.folder / "lock"):
            number = int((self.folder / "next").read_text())
            if number % VHOSTS_AT_ONCE == 0:
                self.node.add_vhosts([f"test-{n}" for n in range(number, number + VHOSTS_AT_ONCE)])
            (self.folder / "next").write_text(str(number + 1))
            return f"test-{number}"

    def leave(self) -> None:
        if self.owner:
            fcntl.flock(self.users, fcntl.LOCK_EX)
            self.node.stop(grace=timedelta(0))
            shutil.rmtree(self.node.base, ignore_errors=True)
        self.users.close()


@pytest.fixture(scope="session")
def folder_of_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def shared_node(folder_of_all: Path, request: pytest.FixtureRequest) -> SharedNode:
    shared = SharedNode(folder_of_all / "rabbitmq", lambda node: node.start(sites=SITES, die_with_parent=True))
    # Not a fixture's teardown: the wait for other processes must not count as time of a test.
    request.config.add_cleanup(shared.leave)
    return shared


@pytest.fixture(scope="session")
def provisioned_node(folder_of_all: Path, request: pytest.FixtureRequest) -> SharedNode:
    folder = folder_of_all / "rabbitmq-tls"
    federation = folder / "federation"

    def start(node: PrivateNode) -> None:
        shutil.rmtree(federation, ignore_errors=True)
        provision(federation, port=free_port())
        node.start(provisioned=federation, die_with_parent=True)

    shared = SharedNode(folder, start)
    request.config.add_cleanup(shared.leave)
    return shared


def provision(folder: Path, *, port: int, sites: Sequence[str] = SITES) -> FederationFolder:
    """A federation with keys for everybody, whose broker is on this machine and whose sites train what tests do."""
    broker = BrokerPart(host="localhost", port=port)
    return provision_here(folder, name="hearts", sites=sites, broker=broker, allowed=ALLOWED)


@pytest.fixture(scope="session")
def fresh_vhost(shared_node: SharedNode) -> Callable[[], Federation]:
    """Makes fresh federations, for tests that need more than one or share one."""
    return lambda: Federation(node=shared_node.node, vhost=shared_node.fresh_vhost())


@pytest.fixture
def vhost(fresh_vhost: Callable[[], Federation]) -> Federation:
    """A fresh federation on the real broker."""
    return fresh_vhost()


@pytest.fixture(scope="session")
def fresh_provisioned(provisioned_node: SharedNode) -> Callable[[], Federation]:
    """Makes fresh federations on the node that speaks TLS alone."""
    folder = provisioned_node.folder / "federation"
    return lambda: Federation(node=provisioned_node.node, vhost=provisioned_node.fresh_vhost(), folder=folder)


@pytest.fixture
def provisioned(fresh_provisioned: Callable[[], Federation]) -> Federation:
    """A fresh federation on a real broker where certificates log in, over TLS alone."""
    return fresh_provisioned()


@pytest.fixture
def throw_away_node(tmp_path: Path) -> Iterator[Callable[[str], PrivateNode]]:
    """Makes private nodes that are killed and deleted after the test, whatever happened to them."""
    nodes: list[PrivateNode] = []

    def make(name: str = "node") -> PrivateNode:
        nodes.append(PrivateNode(tmp_path / name))
        return nodes[-1]

    yield make
    for node in nodes:
        node.stop(grace=timedelta(0))
        shutil.rmtree(node.base, ignore_errors=True)
