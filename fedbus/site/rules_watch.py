"""Looks at a site's rules every second, and at once when SIGHUP comes, and tells who goes by them what has changed."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Protocol

from fedbus.site.rules import SiteRules

LOOK_S = 1.0


class Ruled(Protocol):
    """Whoever goes by the rules: the jobs of a site, on a floor above this one."""

    async def rules_changed(self) -> None:
        """Other rules hold."""

    async def time_turned(self) -> None:
        """The hours of the policy have begun or are over, or it is another day."""


class RulesWatch:
    """Of one site. SIGHUP is heard from here on: unheard, it would end the process."""

    def __init__(self, rules: SiteRules) -> None:
        self._rules = rules
        self._anew = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._anew.set)

    async def run(self, ruled: Ruled) -> None:
        """Look for ever, and tell `ruled`."""
        self._rules.tick()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._anew.wait(), LOOK_S)
            anew = self._anew.is_set()
            self._anew.clear()
            if self._rules.refresh(anew=anew):
                await ruled.rules_changed()
            if self._rules.tick():
                await ruled.time_turned()
