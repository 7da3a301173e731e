"""New labels that a job waits for before it starts: what the sites that are there tell of theirs, together.

What lives here: the count and its sentence. What may not: where the labels are from. A site's number is its word; it
decides when a job starts and nothing else, and no site counts for more than MOST_OF_ONE.
"""

from __future__ import annotations

from collections.abc import Mapping

MOST_OF_ONE = 10**6


def labels_missing(wanted: int, told: Mapping[str, int]) -> str:
    """Say what is missing of the labels that are wanted, in words; empty when enough are there.

    told: by site, of those that have told; a negative number of one that has no data source or does not say it.
    """
    known = {site: min(count, MOST_OF_ONE) for site, count in sorted(told.items()) if count >= 0}
    total = sum(known.values())
    if total >= wanted:
        return ""
    silent = [site for site in sorted(told) if site not in known]
    each = ", ".join(f"{site} {count}" for site, count in known.items())
    unsaid = f"{', '.join(silent)} without a data source" if silent else ""
    said = "; ".join(filter(None, (each, unsaid))) or "no site has told yet"
    return f"waiting for new labels: {total} of {wanted} are there ({said})"
