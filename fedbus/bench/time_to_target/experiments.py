"""Smaller comparisons, each a few rows: no knob to tune, attackers, churn, late sites, bytes.

What lives here: which runs show a goal. What may not: the big table (see `plan`, `table`).

    no_knob      G10  auto against every step of the grid, in every setting, and against sync with a step of 1
    attack       G7   two of twelve sites send -3 delta; what the default clip costs when nobody does
    churn        G5   every site is away a quarter of the time
    late_join    G6   the three sites with the rare classes join at LATE_AT_S
    compression  G3   bytes and updates to target by code, against fp32 and against fp32 sync
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from fedbus.bench.time_to_target.cases import Case
from fedbus.bench.time_to_target.goals import Row, at_least, at_most, ratio
from fedbus.bench.time_to_target.plan import Plan, Setting, Summary, best_etas, summary
from fedbus.bench.time_to_target.pool import Pool
from fedbus.bench.time_to_target.rules import ETAS
from fedbus.bench.time_to_target.scenarios import LATE_AT_S

NO_KNOB = 1.3
ATTACKED = 0.95
CLIP_COST = 0.003
CHURN_COST = 0.005
LATE_PERIODS = 3.5
INT4_BYTES, INT4_UPDATES, TOPK_UP = 1 / 8, 1.10, 1 / 40

Change = Callable[[Case], Case]


def _row(plan: Plan, pool: Pool, setting: Setting, rule: str, *, change: Change, eta: float | None = None) -> Summary:
    cases = [change(plan.case(setting, rule, eta, seed)) for seed in range(plan.seeds)]
    return summary(setting, rule, eta, pool.outcomes(cases))


def _to_end(case: Case) -> Case:
    return replace(case, to_end=True)


# ------------------------------------------------------------------ G10


def no_knob(plan: Plan, pool: Pool) -> list[Row]:
    """Return a row per setting with auto's time over that of the best step, and what it comes to."""
    etas = plan.etas or ETAS
    # all at once, so that the processes are busy: the rows below find them known
    pool.outcomes([case for setting in plan.settings for case in _no_knob_cases(plan, setting, etas)])
    rows, ratios, margins = [], [], []
    for setting in plan.settings:
        auto = _row(plan, pool, setting, "auto", change=_to_end)
        sync = _row(plan, pool, setting, "sync", change=_to_end, eta=1.0)
        best = min(
            (_row(plan, pool, setting, "auto", change=lambda case: case, eta=eta) for eta in etas),
            key=lambda r: r.time_s,
        )
        if not math.isinf(best.time_s):
            ratios.append(ratio(auto.time_s, best.time_s))
            rows.append(at_most(f"{setting}: auto / best step ({best.eta:g})", ratios[-1], "x", NO_KNOB))
        else:
            rows.append(at_most(f"{setting}: no step reaches the target; auto", auto.time_s, "s", None))
        if auto.final is not None and sync.final is not None:
            margins.append(auto.final - sync.final)
            rows.append(at_least(f"{setting}: final accuracy of auto - sync's", margins[-1], "", 0.0))
    return rows + list(_no_knob_sum(ratios, margins))


def _no_knob_cases(plan: Plan, setting: Setting, etas: Sequence[float]) -> Iterator[Case]:
    for seed in range(plan.seeds):
        yield _to_end(plan.case(setting, "auto", None, seed))
        yield _to_end(plan.case(setting, "sync", 1.0, seed))
        for eta in etas:
            yield plan.case(setting, "auto", eta, seed)


def _no_knob_sum(ratios: Sequence[float], margins: Sequence[float]) -> Iterator[Row]:
    if ratios:
        share = sum(value <= NO_KNOB for value in ratios) / len(ratios)
        yield at_least(f"G10 share of {len(ratios)} settings within {NO_KNOB:g} x of the best step", share, "", 1.0)
        yield at_most("G10 worst setting: auto / best step", max(ratios), "x", NO_KNOB)
    if margins:
        yield at_least("G10 worst setting: final accuracy of auto - sync's", min(margins), "", 0.0)


# ------------------------------------------------------------------ G7, G5, G6


def attack(plan: Plan, pool: Pool) -> list[Row]:
    """Return final accuracies under attack, and what clipping costs without one."""
    rows = []
    for setting in plan.settings:
        krum = _final(plan, pool, setting, "auto-krum", "attack")
        rows += [
            at_least(f"G7 {setting}: attacked, auto with multi-Krum, final accuracy", krum, "", ATTACKED),
            at_least(f"{setting}: attacked, auto", _final(plan, pool, setting, "auto", "attack"), "", None),
            at_least(f"{setting}: not attacked, multi-Krum", _final(plan, pool, setting, "auto-krum", ""), "", None),
        ]
        cost = _final(plan, pool, setting, "auto-unclipped", "") - _final(plan, pool, setting, "auto", "")
        rows.append(at_most(f"G7 {setting}: not attacked, what the default clip costs", cost, "", CLIP_COST))
    return rows


def churn(plan: Plan, pool: Pool) -> list[Row]:
    """Return final accuracy with churn against none."""
    rows = []
    for setting in plan.settings:
        calm, churned = (_final(plan, pool, setting, "auto", trouble) for trouble in ("", "churn"))
        rows += [
            at_least(f"{setting}: final accuracy with 25 % churn", churned, "", None),
            at_most(f"G5 {setting}: what 25 % churn costs", calm - churned, "", CHURN_COST),
        ]
    return rows


def _final(plan: Plan, pool: Pool, setting: Setting, rule: str, trouble: str) -> float:
    row = _row(plan, pool, setting, rule, change=lambda case: replace(case, trouble=trouble, to_end=True))
    return math.nan if row.final is None else row.final


def late_join(plan: Plan, pool: Pool) -> list[Row]:
    """Return how long after the rare sites came the target is reached, in periods of the slowest site."""
    rows = []
    for setting in plan.settings:
        for rule in plan.rules:
            row = _row(plan, pool, setting, rule, change=_late, eta=_default_step(rule))
            periods = (row.time_s - LATE_AT_S) / setting.ratio
            goal = LATE_PERIODS if rule == "auto" else None
            rows.append(at_most(f"G6 {setting}: {rule}, rare sites join → target", periods, "slow periods", goal))
    return rows


def _late(case: Case) -> Case:
    return replace(case, trouble="late")


def _default_step(rule: str) -> float | None:
    return None if rule == "auto" else 1.0


# ------------------------------------------------------------------ G3


def compression(plan: Plan, pool: Pool) -> list[Row]:
    """Return bytes and updates to target by code; sync at its own best step."""
    rows: list[Row] = []
    for setting in plan.settings:
        tuned = best_etas(replace(plan, settings=[setting], rules=["sync"]), pool)
        sync = _row(plan, pool, setting, "sync", change=_patient(plan, "fp32"), eta=tuned[setting, "sync"])
        fp32, int4, topk = (
            _row(plan, pool, setting, "auto", change=_patient(plan, code)) for code in ("fp32", "int4", "topk")
        )
        rows += [
            at_most(f"{setting}: sync fp32, bytes to target, both ways", _bytes(sync) / 1e6, "MB", None),
            at_most(f"{setting}: auto fp32, bytes to target, both ways", _bytes(fp32) / 1e6, "MB", None),
            at_most(f"{setting}: auto int4, bytes to target, both ways", _bytes(int4) / 1e6, "MB", None),
            at_most(f"G3 {setting}: int4 / sync fp32, bytes", ratio(_bytes(int4), _bytes(sync)), "x", INT4_BYTES),
            at_most(f"G3 {setting}: int4 / fp32, updates", ratio(int4.updates, fp32.updates), "x", INT4_UPDATES),
            at_most(f"G3 {setting}: topk / sync fp32, bytes up", ratio(topk.bytes_up, sync.bytes_up), "x", TOPK_UP),
            at_most(f"G3 {setting}: topk / auto fp32, bytes up", ratio(topk.bytes_up, fp32.bytes_up), "x", TOPK_UP),
            at_most(f"{setting}: topk / fp32, updates", ratio(topk.updates, fp32.updates), "x", None),
        ]
    return rows


def _patient(plan: Plan, code: str) -> Change:
    return lambda case: replace(case, codec=code, patience=plan.patience)


def _bytes(row: Summary) -> float:
    return row.bytes_up + row.bytes_down
