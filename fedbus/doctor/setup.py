"""What is examined: the settings of one daemon or submitter, or of a bare broker URL, as it would read them itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fedbus.aggregator.settings import LOGIN, AggregatorSettings
from fedbus.bus.url import BrokerUrl
from fedbus.console.settings import LOGIN as SUBMITTER
from fedbus.console.settings import SubmitterSettings
from fedbus.errors import SettingsError
from fedbus.runtime.settings import DaemonSettings, default_home, kit_files, read_toml
from fedbus.site.settings import SiteSettings
from fedbus.training.registry import task_names
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the settings come to. `name` is the login that they name.

    `site` are a site's settings, None for a bare URL; `no_data` says why it has no folder of data. Its `tasks` must be
    importable here, `unknown_tasks` are allowed and not installed.
    """

    role: Role
    name: str
    url: str = field(repr=False)
    kit: Path | None
    identity: Callable[[], Identity | None] = field(repr=False)
    state_dir: Path | None
    site: SiteSettings | None = None
    no_data: str = ""
    tasks: Sequence[str] = ()
    unknown_tasks: Sequence[str] = ()


def find_setup(*, role: Role | None, kit: Path | None, broker_url: str | None) -> Setup:
    """Read the settings as the daemon or command of this role does. Raises SettingsError.

    Without a `role` it is that of the kit's settings file, of the tables and variables that are set, or of the URL's
    user; a submitter when there is nothing.
    """
    kit = kit or kit_of_environment()
    found = role or _role(kit, broker_url or os.environ.get("FEDBUS_BROKER_URL"))
    match found:
        case Role.SITE:
            return _site(kit, broker_url)
        case Role.AGGREGATOR:
            settings = AggregatorSettings.load(kit=kit, broker_url=broker_url)
            return _of(settings, found, LOGIN, settings.state_dir)
        case _:
            return _of(SubmitterSettings.load(kit=kit, broker_url=broker_url), Role.SUBMITTER, SUBMITTER, None)


def _role(kit: Path | None, url: str | None) -> Role:
    if kit is not None and (files := list(kit_files(kit))):
        return Role(files[0].stem)
    tables = read_toml()
    if os.environ.get("FEDBUS_SITE_NAME") or "site" in tables:
        return Role.SITE
    if "aggregator" in tables:
        return Role.AGGREGATOR
    user = BrokerUrl.parse(url).user if url else SUBMITTER
    return Role(user) if user in (LOGIN, SUBMITTER) else Role.SITE


def _site(kit: Path | None, broker_url: str | None) -> Setup:
    url = broker_url or os.environ.get("FEDBUS_BROKER_URL")
    if kit is None and url and not os.environ.get("FEDBUS_SITE_NAME") and "site" not in read_toml():
        bare = SubmitterSettings.load(broker_url=url)
        return _of(bare, Role.SITE, BrokerUrl.parse(url).user, None)
    settings, no_data = _with_data(kit, broker_url)
    installed = task_names()
    wanted = installed if settings.tasks is None else settings.tasks
    setup = _of(settings, Role.SITE, settings.site_name, settings.state_dir)
    return replace(
        setup,
        site=settings,
        no_data=no_data,
        tasks=[task for task in wanted if task in installed],
        unknown_tasks=[task for task in wanted if task not in installed],
    )


def _with_data(kit: Path | None, broker_url: str | None) -> tuple[SiteSettings, str]:
    """A kit comes without the folder of the data: the rest can be examined all the same."""
    try:
        return SiteSettings.load(kit=kit, broker_url=broker_url), ""
    except SettingsError as exc:
        if not str(exc).startswith("site_data: ") or "\n" in str(exc):
            raise
        return SiteSettings.load(kit=kit, broker_url=broker_url, site_data=Path()), str(exc)


def _of(settings: DaemonSettings, role: Role, name: str, state_dir: Path | None) -> Setup:
    return Setup(
        role=role,
        name=name,
        url=settings.url_for(name),
        kit=settings.kit,
        identity=settings.identity,
        state_dir=state_dir,
    )


def _path(variable: str) -> Path | None:
    given = os.environ.get(variable)
    return Path(given) if given else None


def kit_of_environment() -> Path | None:
    return _path("FEDBUS_KIT")


def secret_files() -> list[Path]:
    """Files of this machine that hold a broker URL with a password: the settings file, the login files."""
    config = _path("FEDBUS_CONFIG")
    named = [config] if config is not None and "broker_url" in str(read_toml()) else []
    try:
        logins = default_home() / "broker" / "logins"
    except SettingsError:
        return named
    return [*named, *(logins.glob("*.url") if logins.is_dir() else ())]
