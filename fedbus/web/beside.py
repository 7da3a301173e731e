"""The page in the process of a daemon: what hands it over, with nothing imported that the page alone needs."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable

from fedbus.errors import SettingsError

NEEDED = ("starlette", "uvicorn", "sse_starlette")
READY = "page-ready"
"""The log line that says the address of the page."""
INSTALL = "pip install 'fedbus[web]'"
Beside = Callable[[asyncio.Event], Awaitable[None]]
"""What runs until the event is set."""


def check_installed() -> None:
    """Raise SettingsError with what to do where the extra is missing."""
    if missing := not_installed():
        raise SettingsError(f"the page needs {', '.join(missing)}, which is not installed here: {INSTALL}")


def not_installed() -> list[str]:
    """Packages that the page needs and that are not here."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def page_beside(**flags: object) -> Beside:
    """The page with its own login, its address taken; flags that are None were not given. Raises SettingsError."""
    check_installed()
    from fedbus.web.serve import Page
    from fedbus.web.settings import WebSettings

    settings = WebSettings.load(**flags)
    page = Page(settings, settings.submitter(alone=False))
    page.announce()
    return page.run
