"""From flags to a running site daemon to an exit code."""

from __future__ import annotations

from fedbus.runtime.lifecycle import run_daemon
from fedbus.runtime.logging import configure_logging
from services.site.settings import SiteSettings


def start(**flags: object) -> int:
    """Run the site daemon until a signal; flags that are None were not given. Raises SettingsError."""
    settings = SiteSettings.load(**flags)
    configure_logging(settings.log_level, settings.log_format)
    from services.site.daemon import run_site

    return run_daemon(lambda stop: run_site(settings, stop))
