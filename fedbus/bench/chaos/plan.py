"""What is done to whom and when: a schedule that follows from a seed alone, as plain data.

What lives here: the acts, who they may meet, how long they last. What may not: processes, sockets, clocks.

An act keeps its victims busy until it has healed and they had a moment to work: a site is not killed behind a link that
is half-open (its successor would be taken for a second site of that name, rightly, until the broker misses the
heartbeats), and a broker that is killed while it recovers proves nothing about fedbus. Acts on different victims
overlap freely: an aggregator dies while the broker is down, a site is frozen while its updates are repeated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

AGGREGATOR, BROKER = "aggregator", "broker"


class Act(StrEnum):
    """What can be done; the words are those of the report."""

    KILL_TRAINER = "trainer killed"
    KILL_SITE = "site killed"
    KILL_AGGREGATOR = "aggregator killed"
    KILL_BROKER = "broker killed"
    FREEZE_TRAINER = "trainer frozen"
    FREEZE_SITE = "site frozen"
    FREEZE_AGGREGATOR = "aggregator frozen"
    CUT = "connections cut"
    STALL = "link silent for a while"
    VANISH = "link silent, then cut"
    REFUSE = "connections refused for a while"
    SLOW = "link slow for a while"
    CLOCK_AHEAD = "clock 10 min ahead for a while"
    CLOCK_BEHIND = "clock 10 min behind for a while"
    HANG_STORAGE = "storage hangs"
    FILL_LOG = "log cannot be written"
    REPEAT_UPDATES = "updates sent again, shuffled"
    REPEAT_VERSIONS = "model log records sent again, shuffled"
    REPEAT_RECEIPTS = "receipts sent again, shuffled"
    KILL_NODE = "node killed"
    STOP_NODE = "node stopped"
    FREEZE_NODE = "node frozen"
    CUT_NODE = "node cut off from the others"
    SILENCE_NODE = "node cut off from the others in silence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One act: `at_s` seconds after the schedule began, on `victim`; what it does heals after `for_s` seconds."""

    at_s: float
    act: Act
    victim: str
    for_s: float = 0.0

    def __str__(self) -> str:
        lasting = f" for {self.for_s:g} s" if self.for_s else ""
        return f"{self.at_s:6.1f} s  {self.act}: {self.victim}{lasting}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How an act is drawn: how often it comes up, how long it lasts, how long its victim then has peace; seconds."""

    share: int
    lasts_s: tuple[float, float] = (0.0, 0.0)
    peace_s: float = 1.0


# A lease is 1.5 s in these runs: what lasts longer makes its victim lost. An aggregator needs about 3 s to import torch
# and a broker about 4 s to start, both on an idle machine.
HABITS = {
    Act.KILL_TRAINER: Habits(share=3, peace_s=6.0),
    Act.KILL_SITE: Habits(share=4, lasts_s=(0.0, 3.0), peace_s=8.0),
    Act.KILL_AGGREGATOR: Habits(share=4, lasts_s=(0.0, 2.0), peace_s=12.0),
    Act.KILL_BROKER: Habits(share=3, lasts_s=(0.0, 3.0), peace_s=20.0),
    Act.FREEZE_TRAINER: Habits(share=2, lasts_s=(2.0, 5.0)),
    Act.FREEZE_SITE: Habits(share=2, lasts_s=(2.0, 5.0)),
    Act.FREEZE_AGGREGATOR: Habits(share=2, lasts_s=(2.0, 5.0), peace_s=3.0),
    Act.CUT: Habits(share=3),
    Act.STALL: Habits(share=2, lasts_s=(2.0, 8.0)),
    Act.VANISH: Habits(share=2, lasts_s=(2.0, 8.0)),
    Act.REFUSE: Habits(share=2, lasts_s=(1.0, 5.0)),
    Act.SLOW: Habits(share=1, lasts_s=(2.0, 8.0)),
    Act.CLOCK_AHEAD: Habits(share=2, lasts_s=(4.0, 15.0)),
    Act.CLOCK_BEHIND: Habits(share=2, lasts_s=(4.0, 15.0)),
    Act.HANG_STORAGE: Habits(share=1, lasts_s=(60.0, 60.0), peace_s=8.0),
    Act.FILL_LOG: Habits(share=2, lasts_s=(2.0, 8.0)),
    Act.REPEAT_UPDATES: Habits(share=4, peace_s=0.5),
    Act.REPEAT_VERSIONS: Habits(share=2, peace_s=0.5),
    Act.REPEAT_RECEIPTS: Habits(share=2, peace_s=0.5),
    Act.KILL_NODE: Habits(share=6, lasts_s=(0.0, 5.0), peace_s=20.0),
    Act.STOP_NODE: Habits(share=3, lasts_s=(3.0, 8.0), peace_s=20.0),
    Act.FREEZE_NODE: Habits(share=2, lasts_s=(5.0, 25.0), peace_s=20.0),
    Act.CUT_NODE: Habits(share=4, lasts_s=(2.0, 15.0), peace_s=20.0),
    Act.SILENCE_NODE: Habits(share=2, lasts_s=(10.0, 25.0), peace_s=20.0),
}
ON_SITE = (Act.KILL_TRAINER, Act.KILL_SITE, Act.FREEZE_TRAINER, Act.FREEZE_SITE)
ON_LINK = (Act.CUT, Act.STALL, Act.VANISH, Act.REFUSE, Act.SLOW)
ON_CLOCK = (Act.CLOCK_AHEAD, Act.CLOCK_BEHIND)
ON_MACHINE = (*ON_CLOCK, Act.HANG_STORAGE, Act.FILL_LOG)
ON_NODE = (Act.KILL_NODE, Act.STOP_NODE, Act.FREEZE_NODE, Act.CUT_NODE, Act.SILENCE_NODE)
MISCHIEF = (Act.REPEAT_UPDATES, Act.REPEAT_VERSIONS, Act.REPEAT_RECEIPTS)
PAUSE_S = (0.3, 3.3)
TRIES = 20


def victims(act: Act, sites: tuple[str, ...], nodes: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Who an act may meet."""
    if act in ON_NODE:
        return nodes
    if act in ON_SITE or act is Act.REPEAT_UPDATES:
        return sites
    if act in ON_LINK or act in ON_MACHINE:
        return (*sites, AGGREGATOR)
    return (BROKER,) if act is Act.KILL_BROKER else (AGGREGATOR,)


def schedule(seed: int, sites: tuple[str, ...], *, within_s: float, nodes: tuple[str, ...] = ()) -> tuple[Deed, ...]:
    """The deeds of this seed in order of time; all have healed `within_s` seconds after the first moment.

    Every act comes up once as soon as its victims are free, and then by its share. `nodes` are those of the broker when
    it is a cluster: one of them at a time.
    """
    rng = random.Random(seed)
    acts = [act for act in Act if victims(act, sites, nodes)]
    never = list(acts)
    rng.shuffle(never)
    shares = [HABITS[act].share for act in acts]
    free_at: dict[str, float] = {}
    deeds: list[Deed] = []
    at_s = 0.0
    while at_s < within_s:
        for act in (*never, *rng.choices(acts, shares, k=TRIES)):
            for_s = round(rng.uniform(*HABITS[act].lasts_s), 1)
            free = [v for v in victims(act, sites, nodes) if free_at.get(burden(act, v), 0.0) <= at_s]
            if free and at_s + for_s <= within_s:
                deed = Deed(at_s=at_s, act=act, victim=rng.choice(free), for_s=for_s)
                deeds.append(deed)
                free_at[burden(act, deed.victim)] = at_s + for_s + HABITS[act].peace_s
                never = [other for other in never if other is not act]
                break
        at_s = round(at_s + rng.uniform(*PAUSE_S), 1)
    return tuple(deeds)


def burden(act: Act, victim: str) -> str:
    """What a victim bears one at a time, by name: itself, or what goes on beside all else.

    Messages come again at any time; a process may be born with a wrong clock or into a log that is full. But an
    aggregator that starts with its clock ahead ends a job by `wall_time_s`: nothing tells that from a long absence.
    """
    if act in ON_NODE:
        return BROKER
    if act in ON_CLOCK and victim != AGGREGATOR:
        return f"clock {victim}"
    return f"{act} {victim}" if act in MISCHIEF or act is Act.FILL_LOG else victim
