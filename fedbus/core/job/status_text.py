"""Why a job waits, as one sentence for people: 'waiting for 1 more update, buffer 1 of 2; mercy training step 40/120'.

What lives here: pure functions from views to text. What may not: anything that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedbus.core.job.membership import SiteState, SiteView
from fedbus.core.job.pace import left_s
from fedbus.core.words import counted

STOPPED = "stopped"
"""The reason of a site that was stopped in the ordinary way, see `Leave`: not worth a word."""
MOST_REASON = 200
MOST_PLACES = 12
LEAST_LEFT_S = 5.0
"""Of a shorter rest nothing is said: it is over when it is read."""


def waiting_sentence(what: str, sites: Iterable[SiteView], *, job: str, now: float) -> str:
    """Join what the job waits for with where its sites are.

    `what` is from `Aggregation.waiting_for` or `Job.waiting_for`; `sites` are the sites of the job. Those that are not
    there come first, then those that do something for the job, in order of names; of very many the first few:

        waiting for 2 more updates, buffer 2 of 4; mercy offline 14 min, ucsf training step 40/120, ~6 min left
    """
    places = [_place(site, job=job, now=now) for site in sorted(sites, key=_order)]
    if len(places) > MOST_PLACES:
        places = [*places[:MOST_PLACES], f"and {len(places) - MOST_PLACES} more sites"]
    return "; ".join(filter(None, (what, ", ".join(places))))


def _order(site: SiteView) -> tuple[bool, bool, str]:
    return site.state is SiteState.ONLINE, site.state is SiteState.LEFT, site.name


def _place(site: SiteView, *, job: str, now: float) -> str:
    if site.state is not SiteState.ONLINE:
        why = f" ({site.reason:.{MOST_REASON}})" if site.state is SiteState.LEFT and site.reason != STOPPED else ""
        away = span(now - site.since)
        return f"{site.name} offline {away}" if site.state is SiteState.LOST else f"{site.name} left {away} ago{why}"
    activity = site.activities.get(job)
    if activity is None:
        return f"{site.name} online"
    steps = f" step {activity.step}/{activity.steps}" if activity.steps > 0 else ""
    left = left_s(activity, site.paces.get(job), now=now)
    notes = [f"~{span(left)} left"] if left is not None and left >= LEAST_LEFT_S else []
    notes += [activity.note] if activity.note else []
    notes += [counted(activity.new_labels, "new label")] if activity.new_labels > 0 else []
    return ", ".join((f"{site.name} {activity.phrase}{steps}", *notes))


def in_words(names: Sequence[str]) -> str:
    """Return 'alpha', 'alpha and beta', 'alpha, beta and gamma'."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def clock_words(ahead_s: float) -> str:
    """Say how far a clock is off: '40 s ahead of', '14 min behind'."""
    return f"{span(abs(ahead_s))} {'ahead of' if ahead_s > 0.0 else 'behind'}"


def span(seconds: float) -> str:
    """Say a duration in its largest fitting unit: '40 s', '14 min', '3 h', '2 d'."""
    seconds = max(0.0, seconds)
    for unit, size, limit in (("s", 1, 120), ("min", 60, 120 * 60), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds // 86400)} d"
