"""What a site does next for one job, or why it waits: a table that the site daemon and the simulation go by.

What lives here: the rules. What may not: how a duty is carried out, clocks, files.

    asked in this order                                                         duty
    the daemon stops, or the job is over                                        Stop
    statistics of the data are asked for                                        Examine
    the job only checks data                                                    Wait: for the end of the job
    the aggregator asked for initial params                                     MakeInitial
    no version is held                                                          Wait: for the model
    a score is asked for      and a version as new as that is held              Score
                              and it is not                                     Wait: for that version
    training is over                                                            Wait: for the end of the job
    the version held is older than the oldest worth training from               Wait: for that version
    as many updates as may be on their way await their receipt                  Wait: for a receipt
    a version trains once, and this one was trained from                        Wait: for the next version
    otherwise                                                                   Train
"""

from __future__ import annotations

from dataclasses import dataclass

from fedbus.core.protocol.activities import Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a site holds and was asked for. Versions; -1 in `trained_from`: from none yet.

    only_checks: the job has no params. waits_for_new: each version is trained from once (a synchronous job).
    unsettled: updates that await their receipt.
    """

    held: int | None
    stopping: bool = False
    statistics_asked: bool = False
    only_checks: bool = False
    initial_asked: bool = False
    score_asked: int | None = None
    training_is_over: bool = False
    oldest_base: int = 0
    trained_from: int = -1
    waits_for_new: bool = False
    unsettled: int = 0
    most_unsettled: int = 1


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave off."""


@dataclass(frozen=True, slots=True)
class Examine:
    """Compute statistics of the site's data."""


@dataclass(frozen=True, slots=True)
class MakeInitial:
    """Make the job's first params."""


@dataclass(frozen=True, slots=True)
class Score:
    """Score the version that is held."""


@dataclass(frozen=True, slots=True)
class Train:
    """Train from the version that is held."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing; what for, and the version where it is one."""

    activity: Activity
    version: int | None = None


Duty = Stop | Examine | MakeInitial | Score | Train | Wait


def next_duty(standing: Standing) -> Duty:
    """Return what to do, by the table at the head of this module."""
    if standing.stopping:
        return Stop()
    if standing.statistics_asked:
        return Examine()
    if standing.only_checks:
        return Wait(Activity.WAITING_FOR_END)
    if standing.initial_asked:
        return MakeInitial()
    if standing.held is None:
        return Wait(Activity.WAITING_FOR_MODEL)
    return _with_a_version(standing, standing.held)


def _with_a_version(standing: Standing, held: int) -> Score | Train | Wait:
    if standing.score_asked is not None:
        ready = held >= standing.score_asked
        return Score() if ready else Wait(Activity.WAITING_FOR_VERSION, standing.score_asked)
    if standing.training_is_over:
        return Wait(Activity.WAITING_FOR_END)
    return _training(standing, held)


def _training(standing: Standing, held: int) -> Train | Wait:
    if held < standing.oldest_base:
        return Wait(Activity.WAITING_FOR_VERSION, standing.oldest_base)
    if standing.unsettled >= standing.most_unsettled:
        return Wait(Activity.WAITING_FOR_RECEIPT)
    if standing.waits_for_new and held <= standing.trained_from:
        return Wait(Activity.WAITING_FOR_NEXT)
    return Train()
