"""Why a job waits, as one sentence for people: 'waiting for 1 more update (1 of 2 in the buffer); training: mercy'.

What lives here: pure functions from views to text. What may not: anything that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fedbus.core.job.membership import SiteState, SiteView
from fedbus.core.words import counted

STOPPED = "stopped"
"""The reason of a site that was stopped in the ordinary way, see `Leave`: not worth a word."""
MOST_REASON = 200
_GONE = {SiteState.LOST: "offline", SiteState.LEFT: "left"}


def waiting_sentence(what: str, sites: Iterable[SiteView], *, job: str, now: float) -> str:
    """Join what the job waits for with where its sites are.

    `what` is from `Aggregation.waiting_for` or `Job.waiting_for`; `sites` are the sites of the job. Online sites are
    grouped by what they say they do for it, the others by state, each group in order of names:

        waiting for 1 more update (1 of 2 in the buffer); training: mercy (step 40/120), ucsf; offline: va (since 3 h)
    """
    groups: dict[str, list[str]] = {}
    for site in sorted(sites, key=lambda view: (view.state is not SiteState.ONLINE, view.name)):
        group, member = _place(site, job=job, now=now)
        groups.setdefault(group, []).append(member)
    return "; ".join([what, *(f"{group}: {', '.join(members)}" for group, members in groups.items())])


def _place(site: SiteView, *, job: str, now: float) -> tuple[str, str]:
    if site.state is not SiteState.ONLINE:
        why = f": {site.reason:.{MOST_REASON}}" if site.state is SiteState.LEFT and site.reason != STOPPED else ""
        return _GONE[site.state], f"{site.name} (since {span(now - site.since)}{why})"
    activity = site.activities.get(job)
    if activity is None:
        return "online", site.name
    notes = [f"step {activity.step}/{activity.steps}"] if activity.steps > 0 else []
    notes += [activity.note] if activity.note else []
    notes += [counted(activity.new_labels, "new label")] if activity.new_labels > 0 else []
    return activity.phrase, f"{site.name} ({', '.join(notes)})" if notes else site.name


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
