"""From flags to a running site daemon to an exit code."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import structlog

from fedbus.errors import SettingsError
from fedbus.runtime.lifecycle import run_daemon
from fedbus.runtime.logging import configure_logging
from fedbus.runtime.settings import anothers
from fedbus.site.settings import SiteSettings
from fedbus.store.lock import holder_of

log = structlog.get_logger()


def start(**flags: object) -> int:
    """Run the site daemon until a signal; flags that are None were not given. Raises SettingsError."""
    settings = SiteSettings.load(**flags)
    configure_logging(settings.log_level, settings.log_format)
    for text in anothers(SiteSettings):
        log.warning("setting-not-read", text=text)
    from fedbus.site.daemon import run_site

    return run_daemon(lambda stop: run_site(settings, stop))


def try_now(name: str, state_dir: Path | None) -> str:
    """Tell the site daemon that works in this folder to try again; what was done, in words. Raises SettingsError."""
    folder = SiteSettings.load(site_name=name, site_state_dir=state_dir, site_data=Path()).state_dir
    pid = holder_of(folder)
    if pid is None:
        raise SettingsError(f"no site daemon works in {folder}: start `fedbus site --name {name}`, or give --state-dir")
    try:
        os.kill(pid, signal.SIGUSR1)
    except PermissionError as exc:
        raise SettingsError(f"process {pid} belongs to somebody else: run this as the user of the site daemon") from exc
    return f"site {name} (process {pid}) tries again what failed; its log says what becomes of it"
