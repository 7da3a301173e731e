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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from fedbus.bench.time_to_target.cases import Case, Outcome
from fedbus.bench.time_to_target.goals import Row, at_least, at_most, ratio
from fedbus.bench.time_to_target.plan import Plan, Setting, Summary, best_etas, summary
from fedbus.bench.time_to_target.pool import Pool
from fedbus.bench.time_to_target.rules import ETAS
from fedbus.bench.time_to_target.scenarios import LATE_AT_S

NO_KNOB = 1.3
SLOWER = 1.1
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
    """Return a row per setting with auto's time over that of the best step, and what it comes to.

    A step's run ends when it has taken SLOWER times as long as auto's with the same seed: it is not the best one then.
    """
    cases = [case for setting in plan.settings for case in _without_knob(plan, setting)]
    known = pool.by_case(cases)
    pool.outcomes(
        [case for setting in plan.settings for _, found in _with_knob(plan, setting, known) for case in found]
    )
    rows, ratios, margins = [], [], []
    for setting in plan.settings:
        auto, sync = (summary(setting, case.rule, case.eta, _of(known, case, plan)) for case in _ends(plan, setting, 0))
        trials = [
            summary(setting, "auto", eta, pool.outcomes(found)) for eta, found in _with_knob(plan, setting, known)
        ]
        best = min([auto, *trials], key=lambda row: row.time_s)
        if math.isinf(best.time_s):
            rows.append(at_most(f"{setting}: nothing reaches the target", math.inf, "s", None))
        else:
            ratios.append(ratio(auto.time_s, best.time_s))
            step = "its own" if best.eta is None else f"{best.eta:g}"
            rows.append(at_most(f"{setting}: auto / best step ({step})", ratios[-1], "x", NO_KNOB))
        if auto.final is not None and sync.final is not None:
            margins.append(auto.final - sync.final)
            rows.append(at_least(f"{setting}: final score of auto - sync's", margins[-1], "", 0.0))
    return rows + list(_no_knob_sum(ratios, margins))


def _ends(plan: Plan, setting: Setting, seed: int) -> tuple[Case, Case]:
    """Auto and sync, to the end."""
    return _to_end(plan.case(setting, "auto", None, seed)), _to_end(plan.case(setting, "sync", 1.0, seed))


def _of(known: Mapping[Case, Outcome], first: Case, plan: Plan) -> list[Outcome]:
    return [known[replace(first, seed=seed)] for seed in range(plan.seeds)]


def _without_knob(plan: Plan, setting: Setting) -> list[Case]:
    return [case for seed in range(plan.seeds) for case in _ends(plan, setting, seed)]


def _with_knob(plan: Plan, setting: Setting, known: Mapping[Case, Outcome]) -> Iterator[tuple[float, list[Case]]]:
    """Auto's strategies with each step of the grid, a case per seed."""
    for eta in plan.etas or ETAS:
        cases = []
        for seed in range(plan.seeds):
            auto = known[_ends(plan, setting, seed)[0]]
            until_s = plan.until_s if auto.time_s is None else math.ceil(auto.time_s * SLOWER)
            cases.append(replace(plan.case(setting, "auto", eta, seed), until_s=until_s))
        yield eta, cases


def _no_knob_sum(ratios: Sequence[float], margins: Sequence[float]) -> Iterator[Row]:
    if ratios:
        share = sum(value <= NO_KNOB for value in ratios) / len(ratios)
        yield at_least(f"G10 share of {len(ratios)} settings within {NO_KNOB:g} x of the best step", share, "", 1.0)
        yield at_most("G10 worst setting: auto / best step", max(ratios), "x", NO_KNOB)
    if margins:
        yield at_least("G10 worst setting: final score of auto - sync's", min(margins), "", 0.0)


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
