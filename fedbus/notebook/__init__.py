"""fedbus for notebooks and scripts: ask, submit, follow, fetch; no line of asyncio needed.

    import fedbus
    with fedbus.connect() as federation:        # or: async with fedbus.connect_async() as federation
        federation.submit("job.yaml")

What is asked is what `fedbus.console` asks; errors are those of `fedbus.errors`.
"""

from __future__ import annotations

from pathlib import Path

from fedbus.console.settings import SubmitterSettings
from fedbus.notebook.face import AsyncFederation
from fedbus.notebook.quiet import be_quiet
from fedbus.notebook.sync import Federation

__all__ = ["AsyncFederation", "Federation", "connect", "connect_async"]


def connect(url: str | None = None, *, kit: str | Path | None = None, timeout_s: float | None = None) -> Federation:
    """Log in as submitter and return the federation; `close` it, or use `with`.

    url, kit, timeout_s: as FEDBUS_BROKER_URL, FEDBUS_KIT and FEDBUS_TIMEOUT_S say where they are None; on one machine
    the login of its private broker is found. Works where an event loop runs, as in Jupyter. Raises SettingsError,
    LoginError, UnreachableError.
    """
    return Federation(connect_async(url, kit=kit, timeout_s=timeout_s))


def connect_async(
    url: str | None = None, *, kit: str | Path | None = None, timeout_s: float | None = None
) -> AsyncFederation:
    """The same as an async context manager, which logs in when it is entered."""
    be_quiet()
    return AsyncFederation(SubmitterSettings.load(broker_url=url, kit=kit, timeout_s=timeout_s))
