"""Which sites contributed to the next version, and which are still to send for it: counts kept as sites come and go."""

from __future__ import annotations

from collections.abc import Collection


class Attendance:
    """Of one job. awaited = active sites that neither contributed to the next version nor are idle until then."""

    def __init__(self) -> None:
        self.contributed: set[str] = set()
        self.awaited: set[str] = set()
        self._active: frozenset[str] = frozenset()
        self._idle: set[str] = set()

    def set_active(self, sites: frozenset[str]) -> None:
        """Say which sites train now."""
        self.awaited -= self._active - sites
        self._expect(sites - self._active)
        self._active = sites

    def set_idle(self, site: str) -> None:
        """Say that a site sends nothing before the next version."""
        self._idle.add(site)
        self.awaited.discard(site)

    def on_folded(self, site: str) -> None:
        self.contributed.add(site)
        self.awaited.discard(site)

    def on_committed(self) -> None:
        """The next version is another one: whoever is active is awaited again."""
        returned = (self.contributed | self._idle) & self._active
        self.contributed, self._idle = set(), set()
        self._expect(returned)

    def _expect(self, sites: Collection[str]) -> None:
        self.awaited.update(site for site in sites if site not in self.contributed and site not in self._idle)
