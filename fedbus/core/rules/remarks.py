"""What stands out about a site's updates, as sentences for people: it was bounded, or it changes slowly and for long.

What lives here: when something is worth a sentence, and when it was said before. What may not: what is done about it
(see `peers`, `guards`). Nothing here is a fact: after a restart it may be said once more.

Each is said at OUTSTANDING, and again when it has doubled: a site that stands out for a year is no year of messages.
"""

from __future__ import annotations

from fedbus.core.rules.facts import Folded
from fedbus.core.rules.peers import LONGEST, MOST_EXAMPLES, Peers

OUTSTANDING = 8.0
LONG_AGO = 20
"""So many updates back, as a running mean, is what a site's rise is measured from."""


class Remarks:
    """Of the sites of one job. At most a few dozen sentences a site, whatever it sends."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}
        self._usual: dict[str, tuple[int, float]] = {}

    def on_folded(self, fact: Folded, peers: Peers) -> list[str]:
        """Return what is to be said of an update. peers: of its site."""
        site, claimed = fact.update_id.site, fact.effort.num_examples
        found = []
        usual = peers.usual_norm
        if usual and self._grown(site, "length", fact.norm / usual):
            text = f"{site}: its updates are {fact.norm / usual:.3g} times as long as those of the other sites"
            found.append(f"{text}; at most {LONGEST:g} times counts")
        if (rise := self._rise(site, fact.norm)) and self._grown(site, "rise", rise):
            found.append(f"{site}: its updates are {rise:.3g} times as long as {LONG_AGO} updates ago")
        if claimed > fact.num_examples and self._grown(site, "examples", claimed / fact.num_examples * OUTSTANDING):
            found.append(
                f"{site}: it says that it has {claimed} examples; they count as {fact.num_examples}, {MOST_EXAMPLES} "
                "times what the median of the other sites has"
            )
        return found

    def _grown(self, site: str, what: str, times: float) -> bool:
        """Whether this is to be said: from OUTSTANDING on, and of more than twice what was said before."""
        if times < max(OUTSTANDING, 2.0 * self._said.get((site, what), 0.0)):
            return False
        self._said[site, what] = times
        return True

    def _rise(self, site: str, norm: float) -> float | None:
        """How many times longer than usual an update is, and count it in; None: nobody knows yet."""
        count, usual = self._usual.get(site, (0, 0.0))
        keep = min(count, LONG_AGO) / (min(count, LONG_AGO) + 1)
        self._usual[site] = count + 1, keep * usual + (1.0 - keep) * norm
        return norm / usual if count >= LONG_AGO and usual > 0.0 else None
