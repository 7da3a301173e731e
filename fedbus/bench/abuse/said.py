"""What a hostile site may say on `fedbus.sites`: all of it well-formed, each for somebody to spend much on.

Nothing answers these one by one. They must cost the others nothing: no update, no lease, no second.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from functools import partial

from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post, SiteMessage
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity

UNKNOWN_JOBS = 3000
METRICS = 2000
LONG = "\x1b[2J\u202e" * 2000
Make = Callable[[], tuple[Envelope, ...]]


def said(job: str, other: str, *, site: str, session: str, rng: random.Random) -> dict[str, Make]:
    """Messages by what they are; `job` is one that the site takes part in, `other` one that it does not."""

    def join() -> m.Join:
        return m.Join(site=site, session=session, tasks=("synthetic",), fedbus_version="0.1.0", device="cpu")

    def status(*jobs: str, detail: str = "") -> m.SiteStatus:
        does = tuple(m.JobActivity(job=name, activity=Activity.OTHER, version=-1, detail=detail) for name in jobs)
        return m.SiteStatus(site=site, session=session, lease_s=5.0, jobs=does)

    def score(name: str, version: int, metrics: int = 1) -> m.ScoreAnswer:
        values = {f"m{n}": 0.5 for n in range(metrics)}
        return m.ScoreAnswer(site=site, job=name, version=version, metrics=values, num_examples=10**12)

    def trouble(name: str) -> m.TrainerTrouble:
        return m.TrainerTrouble(site=site, job=name, error=LONG, restarts=rng.randrange(10**6))

    def leave() -> m.Leave:
        return m.Leave(site=site, session=session, reason=LONG)

    def resync(name: str) -> m.ResyncRequest:
        return m.ResyncRequest(site=site, job=name, reason=LONG)

    def answer(name: str) -> m.OfferAnswer:
        return m.OfferAnswer(site=site, job=name, accepted=rng.random() < 0.5, reason=LONG)

    table: dict[str, Callable[[], tuple[SiteMessage, ...]]] = {
        "a status that names 3000 unknown jobs": lambda: (status(*(f"j{n}" for n in range(UNKNOWN_JOBS))),),
        "a status that knows no version": lambda: (status(job),),
        "a status that writes on the screen": lambda: (status(job, detail=LONG),),
        "a resync": lambda: (resync(job),),
        "a resync of a job that is not its own": lambda: (resync(other),),
        "joined, left, joined": lambda: (join(), leave(), join()),
        "a score with 2000 metrics": lambda: (score(job, 0, METRICS),),
        "a score of the future": lambda: (score(job, 10**9),),
        "a score of a job that is not its own": lambda: (score(other, 0),),
        "trouble": lambda: (trouble(job),),
        "trouble in a job that is not its own": lambda: (trouble(other),),
        "an answer for a job that was not offered": lambda: (answer(other),),
        "an answer for a job that does not exist": lambda: (answer("no-such-job"),),
    }
    whole = Post().from_site(status())
    return {what: partial(_envelopes, make) for what, make in table.items()} | {
        "a status of 8 MiB": lambda: (dataclasses.replace(whole, body=bytes(8 << 20)),)
    }


def _envelopes(make: Callable[[], tuple[SiteMessage, ...]]) -> tuple[Envelope, ...]:
    return tuple(map(Post().from_site, make()))
