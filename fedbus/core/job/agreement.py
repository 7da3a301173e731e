"""Which model a job trains, when its sites do not all make the same one: asked before the start.

What lives here: digests of layouts (see `layout`) of those who accepted, by site. What may not: what a layout holds.

Nobody knows which site is right. More than half of those who accepted decide, as soon as so many agree; otherwise the
most, once all have answered or those who have not had time enough; two groups of one size decide nothing, and people
are told who differs from whom. A site that differs is not counted for the start; it gives the job up by itself, and
names the tensors, when it sees the params.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """digest: of the layout that the job will have; None: not decided. sites: who makes it, in order.

    says: who differs from whom, or whom it waits for; empty when there is nothing to say.
    """

    digest: str | None
    sites: tuple[str, ...] = ()
    says: str = ""


class Layouts:
    """What the sites of one job have said of their models. Times are seconds on one clock.

    The others have `wait_s` from the first time that `agreement` was asked for; `first_wait_s` where none has said
    anything, for sites of an older release never do.
    """

    def __init__(self, *, wait_s: float, first_wait_s: float) -> None:
        self._wait_s = wait_s
        self._first_wait_s = min(first_wait_s, wait_s)
        self._digests: dict[str, str] = {}
        self._since: float | None = None

    def said(self, site: str, digest: str) -> None:
        """A site has opened the task."""
        self._digests[site] = digest

    def forget(self, site: str) -> None:
        """A site was started anew: its task may be another one now."""
        self._digests.pop(site, None)

    def agreement(self, present: Collection[str], *, now: float) -> Agreement:
        """What the sites that are there agree on."""
        self._since = now if self._since is None else self._since
        return agreement(self._digests, present, waits=self._waits(now))

    def agreeing(self, digest: str, present: Collection[str], *, now: float) -> frozenset[str]:
        """Sites whose task makes this model; those that do not say count once they had the time to."""
        assumed = "" if self._waits(now) else digest
        return frozenset(site for site in present if self._digests.get(site, assumed) == digest)

    def differ(self, present: Collection[str]) -> bool:
        """Whether two of them make different models."""
        return len({self._digests[site] for site in present if site in self._digests}) > 1

    def _waits(self, now: float) -> bool:
        limit_s = self._wait_s if self._digests else self._first_wait_s
        return self._since is None or now - self._since < limit_s


def agreement(layouts: Mapping[str, str], present: Collection[str], *, waits: bool) -> Agreement:
    """Return what the sites that are `present` agree on.

    layouts: digests of those that have said one. waits: whether the others still have time to.
    """
    groups: dict[str, list[str]] = {}
    for site in sorted(present):
        if layouts.get(site):
            groups.setdefault(layouts[site], []).append(site)
    silent = sorted(site for site in present if not layouts.get(site))
    ranked = sorted(groups.items(), key=lambda group: -len(group[1]))
    says = _differences(ranked)
    if not ranked:
        return Agreement(digest=None, says=_waiting_for(silent) if waits else "")
    (digest, most), *others = ranked
    if 2 * len(most) > len(present) or (not (waits and silent) and (not others or len(most) > len(others[0][1]))):
        return Agreement(digest=digest, sites=tuple(most), says=says)
    if waits and silent:
        return Agreement(digest=None, says="; ".join(filter(None, (says, _waiting_for(silent)))))
    return Agreement(digest=None, says=f"{says}: nobody can say who is right; install the same task everywhere")


def _differences(ranked: list[tuple[str, list[str]]]) -> str:
    if len(ranked) < 2:
        return ""
    first, *others = (f"{', '.join(sites)} ({digest[:8]})" for digest, sites in ranked)
    return f"sites make different models: {first} against {' and '.join(others)}"


def _waiting_for(silent: list[str]) -> str:
    return f"waiting until the task is open at {', '.join(silent)}"
