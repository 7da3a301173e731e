"""All checks in their order, each with its time: settings and kit, network, TLS, login, broker, machine, tasks.

What needs no connection is looked at first, and a kit that is wrong is never tried at a broker. When one link of the
chain is broken the checks after it are skipped, not failed: one cause is one line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedbus.bus.connection import Session
from fedbus.bus.post import SEAL_KEY
from fedbus.bus.url import BrokerUrl
from fedbus.doctor import machine
from fedbus.doctor.broker import examine_broker
from fedbus.doctor.connected import connected
from fedbus.doctor.finding import Area, Finding, Reporter, Status
from fedbus.doctor.kit import examine_kit, key_modes, seal_key
from fedbus.doctor.limits import Deadline, Running, limited
from fedbus.doctor.network import reach, resolve
from fedbus.doctor.setup import Setup, find_setup, kit_of_environment, secret_files
from fedbus.doctor.site import DATA, examine_cage, examine_data, examine_policy, examine_stop
from fedbus.doctor.tasks import TASKS, examine_tasks
from fedbus.doctor.tls import TLS, examine_tls
from fedbus.errors import FedbusError, SettingsError, StoreError
from fedbus.runtime.cage import trouble
from fedbus.site.cage import source_cage
from fedbus.site.places import gpus
from fedbus.site.settings import SiteSettings
from fedbus.store.lock import holder_of
from fedbus.trust.subjects import Role

SETTINGS = Reporter(Area.CONFIG, "settings")
PLACES = Reporter(Area.NETWORK, "places")
LIMIT_S, QUICK_LIMIT_S = 28.0, 8.0
NAME_S, PORT_S, TLS_S, BROKER_S, DISK_S = 4.0, 5.0, 6.0, 12.0, 3.0
ANSWER_WITHIN = timedelta(seconds=8)


def examine(*, role: Role | None, kit: Path | None, broker_url: str | None, quick: bool) -> Iterator[Finding]:
    """Findings as they come.

    Quick, for health checks: nothing is logged in to, no task is imported, and where the daemon of this machine is
    connected no connection is tried.
    """
    deadline = Deadline(QUICK_LIMIT_S if quick else LIMIT_S)
    now = datetime.now(UTC)
    try:
        setup = find_setup(role=role, kit=kit, broker_url=broker_url)
        url = BrokerUrl.parse(setup.url)
    except SettingsError as exc:
        yield from _without_settings(exc, kit or kit_of_environment(), role, now)
        return
    site = setup.site
    tasks = None if quick or site is None else Running("tasks", lambda: list(_tasks(setup, site, deadline)))
    config = _within(SETTINGS, setup.kit, DISK_S, lambda: list(_config(setup, url, now)))
    yield from config
    if any(finding.status is Status.FAIL for finding in config):
        yield Reporter(Area.NETWORK, "connection").skipped("not tried: mend what failed above first")
    else:
        yield from _connection(setup, url, quick=quick, now=now, deadline=deadline)
    yield from _machine(setup, min(DISK_S, deadline.left_s + 1))
    if site is not None:
        yield from _site(site, setup.no_data, min(DISK_S, deadline.left_s + 1))
    if tasks is not None:
        yield from _of_tasks(tasks, deadline.left_s + 1)


def _within(check: Reporter, place: Path | None, within_s: float, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What a look at files comes to, also where their storage hangs."""
    try:
        return limited(check.check, look, within_s)
    except TimeoutError:
        return [
            check.fail(f"{place or 'a file of the settings'} does not answer", "its file system hangs: mount it again")
        ]


def _of_tasks(tasks: Running[list[Finding]], within_s: float) -> list[Finding]:
    try:
        return tasks.result(within_s)
    except TimeoutError:
        return [TASKS.warn("the process that imports them does not end", "run again when the machine is less busy")]


def _without_settings(exc: SettingsError, kit: Path | None, role: Role | None, now: datetime) -> Iterator[Finding]:
    """A kit that is wrong may be why the settings are: its own findings say it better."""
    found = [] if kit is None else list(examine_kit(kit, role=role, name=None, now=now))
    yield from found
    if not any(finding.status is Status.FAIL for finding in found):
        yield SETTINGS.fail(str(exc), "")


def _config(setup: Setup, url: BrokerUrl, now: datetime) -> Iterator[Finding]:
    yield SETTINGS.ok(f"{setup.role} {setup.name}, broker {url.address}, {setup.kit or 'no kit: a password logs in'}")
    if setup.kit is None:
        yield key_modes(secret_files())
        return
    yield from examine_kit(setup.kit, role=setup.role, name=setup.name, now=now)
    if setup.state_dir is not None:
        yield seal_key(setup.state_dir / SEAL_KEY)
    if url.user:
        yield SETTINGS.fail(
            "the broker URL has a user, and the kit logs in by its certificate",
            f"write amqps://{url.address}/{url.vhost}, or do without the kit",
        )


def _connection(setup: Setup, url: BrokerUrl, *, quick: bool, now: datetime, deadline: Deadline) -> Iterator[Finding]:
    daemon = _holder(setup.state_dir) if quick and setup.state_dir is not None else None
    held = None if daemon is None else connected(daemon, url)
    if held is not None:
        yield held
        return
    found = yield from _places(setup, url, now, deadline)
    if quick or not found:
        return
    yield from _broker(setup, min(BROKER_S, deadline.left_s))


def _places(setup: Setup, url: BrokerUrl, now: datetime, deadline: Deadline) -> Generator[Finding, None, bool]:
    """Whether a connection comes about with any place of the broker: one of several that answers is enough."""
    if len(url.places) == 1:
        findings = list(_place(setup, url, now, deadline))
        yield from findings
        return _good(findings)
    by_place = {place.address: list(_place(setup, place, now, deadline)) for place in url.places}
    reached = [address for address, findings in by_place.items() if _good(findings)]
    for number, (address, findings) in enumerate(by_place.items(), 1):
        for finding in findings:
            spared = bool(reached) and finding.status is Status.FAIL
            status = Status.WARN if spared else finding.status
            yield replace(finding, check=f"{finding.check} {number}", status=status, text=f"{address}: {finding.text}")
    left_out = [address for address in by_place if address not in reached]
    if reached:
        silent = f"; not {', '.join(left_out)}, without which daemons go on" if left_out else ""
        yield PLACES.ok(f"{len(reached)} of {len(by_place)} answer: {', '.join(reached)}{silent}")
    else:
        yield PLACES.fail("none of the broker's places answers", "mend what failed above at one of them")
    return bool(reached)


def _good(findings: Sequence[Finding]) -> bool:
    return all(finding.status is not Status.FAIL for finding in findings)


def _place(setup: Setup, url: BrokerUrl, now: datetime, deadline: Deadline) -> Iterator[Finding]:
    name, addresses = resolve(url.host, url.port, within_s=min(NAME_S, deadline.left_s))
    yield name
    if not addresses:
        return
    port = reach(addresses, url.port, within_s=min(PORT_S, deadline.left_s))
    yield port
    if port.status is Status.FAIL:
        return
    yield from _tls(setup, url, now, min(TLS_S, deadline.left_s))


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


def _machine(setup: Setup, within_s: float) -> Iterator[Finding]:
    yield machine.own_clock(machine.clock_is_kept())
    if setup.state_dir is not None:
        folder, what = setup.state_dir, str(setup.role)
        yield from _within(
            machine.DISK, folder, within_s, lambda: [machine.disk(folder), *machine.state(folder, what=what)]
        )
    if setup.role is Role.SITE:
        yield machine.leftovers(machine.processes())


def _site(site: SiteSettings, no_data: str, within_s: float) -> Iterator[Finding]:
    yield from examine_stop(site.state_dir, site.site_name)
    yield examine_policy(site.policy_path)
    yield examine_cage(site)
    if no_data:
        yield DATA.fail(no_data, "")
    else:
        yield from _within(DATA, site.site_data, within_s, lambda: list(examine_data(site.site_data)))


def _tasks(setup: Setup, site: SiteSettings, deadline: Deadline) -> Iterator[Finding]:
    for name in setup.unknown_tasks:
        yield Reporter(Area.TASKS, f"task {name[:40]}").fail(
            "the settings allow it and it is not installed", "install its package, or take it out of `tasks`"
        )
    cage = source_cage(site)
    around = cage.around if cage is not None and not trouble() else list
    yield from examine_tasks(setup.tasks, device=site.device, gpus=gpus(), deadline=deadline, around=around)


def _holder(folder: Path) -> int | None:
    try:
        return holder_of(folder)
    except (OSError, StoreError):
        return None
