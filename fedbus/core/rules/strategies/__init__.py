"""Strategies: how much an update counts, and when the buffer becomes a new version.

What lives here: one frozen class per rule, pure functions of numbers. What may not: the state of a job (see
`aggregation`, which asks a strategy and records its answers as facts), tensors, staleness functions (see `staleness`).

    rule       weight of an update                    commit when                            mean delta
    buffered   n^p (1 + mean s)^b f(s)                the buffer holds K, or flush_after_s   sum / weights | sum / n^p
    calibrated n^p, minus what is remembered of it    so do K sites                          + what is remembered of all
    auto       as buffered or calibrated, by the sites' measured speeds; the default
    fedasync   mixing f(s)                            at every update                        sum
    sync       n^p f(s)                               k sites contributed, or deadline_s     sum / weights

and around one of them

    by_steps   / local steps                          as it                                  times effective steps
    robust     as it                                  as it, once 2 f + 3 sites are there    see `core.rules.robust`
    contributors   as it                              as it, once k sites are there          as it

n: num_examples; p: `num_examples_power`; s: staleness; f: staleness function; mean s: running mean of the site's s;
sum: of weight delta.
A new rule is a class with the methods of `base.Strategy`, a spec in `spec.sections` and a line in `strategy_of`.
"""

from __future__ import annotations

from typing import assert_never

from fedbus.core.rules.staleness import constant, staleness_function
from fedbus.core.rules.strategies.auto import Auto
from fedbus.core.rules.strategies.base import Buffer, Evidence, Plan, Share, Strategy, examples_weight
from fedbus.core.rules.strategies.buffered import Buffered
from fedbus.core.rules.strategies.by_steps import ByLocalSteps
from fedbus.core.rules.strategies.calibrated import Calibrated
from fedbus.core.rules.strategies.contributors import Contributors, least_contributors
from fedbus.core.rules.strategies.fedasync import FedAsync
from fedbus.core.rules.strategies.robust import Robust
from fedbus.core.rules.strategies.sync import Sync
from fedbus.core.spec.training import (
    AutoSpec,
    BufferedSpec,
    CalibratedSpec,
    FedAsyncSpec,
    SyncSpec,
    TrainingSpec,
)

__all__ = [
    "Auto",
    "Buffer",
    "Buffered",
    "ByLocalSteps",
    "Calibrated",
    "Contributors",
    "Evidence",
    "FedAsync",
    "Plan",
    "Robust",
    "Share",
    "Strategy",
    "Sync",
    "examples_say",
    "least_contributors",
    "settled",
    "strategy_of",
]


def strategy_of(spec: TrainingSpec) -> Strategy:
    """Return the strategy that a job spec asks for, within the rules that go around it."""
    rule = _rule_of(spec)
    if spec.local.time_boxed and spec.local.steps is not None:
        rule = ByLocalSteps(inner=rule, most=spec.local.steps)
    if spec.robust is not None:
        rule = Robust(inner=rule, kind=spec.robust.kind, f=spec.robust.f)
    return rule if spec.min_contributors == 1 else Contributors(inner=rule, least=least_contributors(spec))


def examples_say(spec: TrainingSpec, num_examples: int, *, fewest: float) -> float:
    """Return what a site's examples weigh by the job's rule, whatever its speed; see `peers.fewest_examples`."""
    match spec.strategy:
        case FedAsyncSpec():
            return 1.0
        case SyncSpec():
            return examples_weight(num_examples, power=spec.num_examples_power)
        case _:
            ratio = spec.num_examples_ratio
            return examples_weight(num_examples, power=spec.num_examples_power, fewest=fewest, most_ratio=ratio)


def settled(spec: TrainingSpec) -> str:
    """Say why `auto` is buffered throughout this job; empty when it may choose."""
    if spec.robust is not None:
        return f"{spec.robust.kind} judges what is in the buffer, and a memory would keep what a liar sent"
    if spec.local.time_boxed:
        return "time-boxed sites return alike, and a memory would hold deltas of unlike lengths"
    return ""


def _rule_of(spec: TrainingSpec) -> Strategy:
    power, ratio, function = spec.num_examples_power, spec.num_examples_ratio, staleness_function(spec.staleness)
    match spec.strategy:
        case BufferedSpec() as buffered:
            return Buffered(
                power=power,
                most_ratio=ratio,
                staleness_weight=function,
                buffer=buffered.buffer,
                flush_after_s=buffered.flush_after_s,
                normalise_by_weights=buffered.normalise == "weights",
                rate_correction=buffered.rate_correction,
            )
        case CalibratedSpec(buffer=buffer, flush_after_s=flush_after_s):
            return Calibrated(power=power, most_ratio=ratio, buffer=buffer, flush_after_s=flush_after_s)
        case AutoSpec(buffer=buffer, flush_after_s=flush_after_s):
            calibrated = Calibrated(power=power, most_ratio=ratio, buffer=buffer, flush_after_s=flush_after_s)
            return Auto(
                settled=settled(spec),
                calibrated=calibrated,
                buffered=Buffered(
                    power=power,
                    most_ratio=ratio,
                    staleness_weight=constant,
                    buffer=buffer,
                    flush_after_s=flush_after_s,
                    rate_correction=1.0,
                ),
            )
        case FedAsyncSpec() as fedasync:
            return FedAsync(mixing=fedasync.mixing, staleness_weight=function)
        case SyncSpec() as sync:
            return Sync(power=power, staleness_weight=function, k=sync.k, deadline_s=sync.deadline_s)
        case _:
            assert_never(spec.strategy)
