"""All checks in their order, each with its time: settings and kit, network, TLS, login, broker, machine, tasks.

What needs no connection is looked at first, and a kit that is wrong is never tried at a broker. When one link of the
chain is broken the checks after it are skipped, not failed: one cause is one line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedbus.bus.connection import Session
from fedbus.bus.url import BrokerUrl
from fedbus.doctor import machine
from fedbus.doctor.broker import examine_broker
from fedbus.doctor.finding import Area, Finding, Reporter, Status
from fedbus.doctor.kit import examine_kit, key_modes
from fedbus.doctor.limits import Deadline, Running, limited
from fedbus.doctor.network import reach, resolve
from fedbus.doctor.setup import Setup, find_setup, secret_files
from fedbus.doctor.tasks import examine_tasks
from fedbus.doctor.tls import TLS, examine_tls
from fedbus.errors import FedbusError, SettingsError, StoreError
from fedbus.site.places import gpus
from fedbus.store.lock import holder_of
from fedbus.trust.subjects import Role

SETTINGS = Reporter(Area.CONFIG, "settings")
DATA = Reporter(Area.TASKS, "data")
LIMIT_S, QUICK_LIMIT_S = 28.0, 8.0
NAME_S, PORT_S, TLS_S, BROKER_S, DISK_S = 4.0, 5.0, 8.0, 10.0, 3.0
ANSWER_WITHIN = timedelta(seconds=8)


def examine(*, role: Role | None, kit: Path | None, broker_url: str | None, quick: bool) -> Iterator[Finding]:
    """Findings as they come. Quick: nothing is logged in to, and no task is imported."""
    deadline = Deadline(QUICK_LIMIT_S if quick else LIMIT_S)
    now = datetime.now(UTC)
    try:
        setup = find_setup(role=role, kit=kit, broker_url=broker_url)
        url = BrokerUrl.parse(setup.url)
    except SettingsError as exc:
        yield SETTINGS.fail(str(exc), "")
        if kit is not None:
            yield from examine_kit(kit, role=role, name=None, now=now)
        return
    tasks = None if quick or setup.role is not Role.SITE else Running("tasks", lambda: list(_tasks(setup, deadline)))
    config = list(_config(setup, url, now))
    yield from config
    if any(finding.status is Status.FAIL for finding in config):
        yield Reporter(Area.NETWORK, "connection").skipped("not tried: mend what failed above first")
    else:
        yield from _connection(setup, url, quick=quick, now=now, deadline=deadline)
    yield from _machine(setup)
    yield from _data(setup)
    if tasks is not None:
        yield from tasks.result(deadline.left_s + 1)


def _config(setup: Setup, url: BrokerUrl, now: datetime) -> Iterator[Finding]:
    yield SETTINGS.ok(f"{setup.role} {setup.name}, broker {url.address}, {setup.kit or 'no kit: a password logs in'}")
    if setup.kit is None:
        yield key_modes(secret_files())
        return
    yield from examine_kit(setup.kit, role=setup.role, name=setup.name, now=now)
    if url.user:
        yield SETTINGS.fail(
            "the broker URL has a user, and the kit logs in by its certificate",
            f"write amqps://{url.address}/{url.vhost}, or do without the kit",
        )


def _connection(setup: Setup, url: BrokerUrl, *, quick: bool, now: datetime, deadline: Deadline) -> Iterator[Finding]:
    name, addresses = resolve(url.host, url.port, within_s=min(NAME_S, deadline.left_s))
    yield name
    if not addresses:
        return
    port = reach(addresses, url.port, within_s=min(PORT_S, deadline.left_s))
    yield port
    if port.status is Status.FAIL:
        return
    tls = _tls(setup, url, now, min(TLS_S, deadline.left_s))
    yield from tls
    if quick or any(finding.status is Status.FAIL for finding in tls):
        return
    yield from _broker(setup, min(BROKER_S, deadline.left_s))


def _tls(setup: Setup, url: BrokerUrl, now: datetime, within_s: float) -> list[Finding]:
    try:
        identity = setup.identity()
        return limited("tls", lambda: asyncio.run(examine_tls(url, identity, now=now, within_s=within_s / 2)), within_s)
    except TimeoutError as exc:
        return [TLS.fail(f"{url.address}: {exc}", "ask IT for what is on the way: something holds TLS back")]
    except FedbusError as exc:
        return [TLS.fail(str(exc), "")]


def _broker(setup: Setup, within_s: float) -> list[Finding]:
    found: list[Finding] = []

    async def ask() -> None:
        identity = setup.identity()
        session = Session(
            setup.url,
            name="doctor",
            identity=identity,
            give_up_after=timedelta(0),
            answer_within=ANSWER_WITHIN,
        )
        own = setup.state_dir is not None and _holder(setup.state_dir) is not None
        await examine_broker(
            session,
            found.append,
            role=setup.role,
            number=None if identity is None else identity.number,
            own_daemon=own,
            within_s=within_s,
        )

    try:
        limited("broker", lambda: asyncio.run(ask()), within_s + 1)
    except (TimeoutError, FedbusError) as exc:
        found.append(Reporter(Area.BROKER, "broker").fail(str(exc), "ask the broker's operator what its log says"))
    return found


def _machine(setup: Setup) -> Iterator[Finding]:
    yield machine.own_clock(machine.clock_is_kept())
    if setup.state_dir is None:
        return
    folder = setup.state_dir
    try:
        yield from limited("disk", lambda: [machine.disk(folder), *machine.state(folder, what=f"{setup.role}")], DISK_S)
    except TimeoutError:
        yield machine.DISK.fail(f"{folder} does not answer", "its file system hangs: mount it again")
    if setup.role is Role.SITE:
        yield machine.leftovers(machine.processes())


def _data(setup: Setup) -> Iterator[Finding]:
    if setup.no_data:
        yield DATA.fail(setup.no_data, "")
    if setup.data is None:
        return
    folder = setup.data
    try:
        there = limited("data", lambda: folder.is_dir() and any(True for _ in folder.iterdir()), DISK_S)
    except TimeoutError:
        yield DATA.fail(f"{folder} does not answer", "its file system hangs: mount it again")
    except OSError as exc:
        yield DATA.fail(f"{folder} cannot be read: {exc.strerror}", "let the daemon's user read it")
    else:
        yield (
            DATA.ok(f"{folder} holds something")
            if there
            else DATA.fail(f"{folder} is missing or empty", "mount it, or correct site_data")
        )


def _tasks(setup: Setup, deadline: Deadline) -> Iterator[Finding]:
    for name in setup.unknown_tasks:
        yield Reporter(Area.TASKS, f"task {name[:40]}").fail(
            "the settings allow it and it is not installed", "install its package, or take it out of `tasks`"
        )
    yield from examine_tasks(setup.tasks, device=setup.device, gpus=gpus(), deadline=deadline)


def _holder(folder: Path) -> int | None:
    try:
        return holder_of(folder)
    except (OSError, StoreError):
        return None
