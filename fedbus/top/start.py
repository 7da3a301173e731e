"""How `fedbus top` starts: is there a terminal, who logs in, and the exit code at the end."""

from __future__ import annotations

import os
import sys

from fedbus.errors import SettingsError

INSTEAD = "instead: `fedbus jobs`, `fedbus sites`, `fedbus watch JOB`, all of them with -o json"


def check_terminal() -> None:
    """Raise SettingsError, with what to use instead, where no table can be drawn."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SettingsError(f"fedbus top draws on a terminal, and this is none; {INSTEAD}")
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        raise SettingsError(f"fedbus top needs a terminal that can be drawn on, and TERM says it cannot; {INSTEAD}")


def run_top(broker_url: str | None, every_s: float) -> int:
    """Run until a key or a signal ends it. Raises FedbusError when the broker refuses the login, or without an URL."""
    from fedbus.console.client import Client
    from fedbus.console.settings import SubmitterSettings
    from fedbus.runtime.logging import configure_logging
    from fedbus.runtime.process import run_async
    from fedbus.top.app import Top

    settings = SubmitterSettings.load(broker_url=broker_url)
    configure_logging("critical", settings.log_format)  # a line in the middle of a table is of no use
    settings.url_for("submitter")

    async def run() -> int:
        top = Top(lambda: Client(settings), every_s=every_s)
        code = await top.run_async()
        if top.error is not None:
            raise top.error
        return code if code is not None else top.return_code or 0

    return run_async(run())
