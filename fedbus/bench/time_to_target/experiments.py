"""Smaller comparisons, each a few rows: no knob to tune, attackers, churn, late sites, bytes.

What lives here: which runs show a goal. What may not: the big table (see `plan`, `table`).

    no_knob      G10  auto against every step of the grid, in every setting, and against sync with a step of 1
    attack       G7   two of twelve sites send -3 delta, by defence; what the default clip costs when nobody does
    churn        G5   every site is away a quarter of the time
    late_join    G6   the three sites with the rare classes join at LATE_AT_S
    compression  G3   bytes and updates to target by code, against fp32 and against fp32 sync
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from fedbus.bench.time_to_target.cases import Case, Outcome
from fedbus.bench.time_to_target.goals import Row, at_least, at_most, ratio
from fedbus.bench.time_to_target.plan import Plan, Setting, Summary, best_etas, summary
from fedbus.bench.time_to_target.pool import Pool
from fedbus.bench.time_to_target.rules import ETAS, rule_of
from fedbus.bench.time_to_target.scenarios import LATE_AT_S
from fedbus.core.spec.sections import RobustKind

NO_KNOB = 1.3
SLOWER = 1.1
ATTACKED = 0.95
UNCLIPPED = "auto-unclipped"
CLIP_COST = 0.003
CHURN_COST = 0.005
LATE_PERIODS = 3.5
CODES = ("fp32", "int4", "topk")
INT4_BYTES, INT4_UPDATES, TOPK_UP = 1 / 8, 1.10, 1 / 40

Change = Callable[[Case], Case]
Found = Mapping[tuple[Setting, str], Summary]


def _rows(plan: Plan, pool: Pool, wanted: Mapping[str, tuple[str, Change]]) -> Found:
    """Run every wanted row, a rule and what differs from its plain case, in every setting; all at once."""
    cases = {
        (setting, name): [change(plan.case(setting, rule, None, seed)) for seed in range(plan.seeds)]
        for setting in plan.settings
        for name, (rule, change) in wanted.items()
    }
    known = pool.by_case([case for found in cases.values() for case in found])
    return {
        (setting, name): summary(setting, found[0].rule, found[0].eta, (known[case] for case in found))
        for (setting, name), found in cases.items()
    }


def _final(row: Summary) -> float:
    return math.nan if row.final is None else row.final


def _to_end(case: Case) -> Case:
    return replace(case, to_end=True)


def _in_trouble(trouble: str) -> Change:
    return lambda case: replace(case, trouble=trouble, to_end=True)


# ------------------------------------------------------------------ G10


def no_knob(plan: Plan, pool: Pool) -> list[Row]:
    """Return a row per setting with auto's time over that of the best step, and what it comes to.

    A step's run ends when it has taken SLOWER times as long as auto's with the same seed: it is not the best one then.
    """
    settings = plan.settings
    ends = pool.by_case([case for setting in settings for case in _without_knob(plan, setting)])
    steps = {setting: dict(_with_knob(plan, setting, ends)) for setting in settings}
    tried = pool.by_case([case for found in steps.values() for cases in found.values() for case in cases])
    rows, ratios, margins = [], [], []
    for setting in settings:
        auto, sync = (summary(setting, case.rule, case.eta, _of(ends, case, plan)) for case in _ends(plan, setting, 0))
        trials = [summary(setting, "auto", eta, (tried[c] for c in cases)) for eta, cases in steps[setting].items()]
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
    """Return final accuracies with and without attackers by defence, and what clipping costs without one."""
    rules = ("auto", *(f"auto-{kind}" for kind in get_args(RobustKind)))
    wanted = {
        **{f"attacked, {rule}": (rule, _in_trouble("attack")) for rule in rules},
        **{f"not attacked, {rule}": (rule, _to_end) for rule in (*rules, UNCLIPPED)},
    }
    found, rows = _rows(plan, pool, wanted), []
    for setting in plan.settings:
        final = {name: _final(found[setting, name]) for name in wanted}
        for name, value in final.items():
            goal = ATTACKED if name == "attacked, auto-multi_krum" else None
            rows.append(at_least(f"{'G7 ' if goal else ''}{setting}: {name}, final accuracy", value, "", goal))
        cost = final[f"not attacked, {UNCLIPPED}"] - final["not attacked, auto"]
        rows.append(at_most(f"G7 {setting}: not attacked, what the default clip costs", cost, "", CLIP_COST))
    return rows


def churn(plan: Plan, pool: Pool) -> list[Row]:
    """Return final accuracy with churn against none."""
    found = _rows(plan, pool, {"calm": ("auto", _to_end), "churned": ("auto", _in_trouble("churn"))})
    rows = []
    for setting in plan.settings:
        calm, churned = _final(found[setting, "calm"]), _final(found[setting, "churned"])
        rows += [
            at_least(f"{setting}: final accuracy with 25 % churn", churned, "", None),
            at_most(f"G5 {setting}: what 25 % churn costs", calm - churned, "", CHURN_COST),
        ]
    return rows


def late_join(plan: Plan, pool: Pool) -> list[Row]:
    """Return how long after the rare sites came the target is reached, in periods of the slowest site.

    Rules with a knob have a step of 1.
    """
    found = _rows(plan, pool, {rule: (rule, _late) for rule in plan.rules})
    return [
        at_most(
            f"G6 {setting}: {rule}, rare sites join → target",
            (row.time_s - LATE_AT_S) / setting.ratio,
            "slow periods",
            LATE_PERIODS if rule == "auto" else None,
        )
        for (setting, rule), row in found.items()
    ]


def _late(case: Case) -> Case:
    return replace(case, trouble="late", eta=1.0 if rule_of(case.rule).grid else None)


# ------------------------------------------------------------------ G3


def compression(plan: Plan, pool: Pool) -> list[Row]:
    """Return bytes and updates to target by code; sync at its own best step."""
    tuned = best_etas(replace(plan, rules=["sync"]), pool)
    steps = {setting.scenario: eta for (setting, _), eta in tuned.items()}
    wanted: dict[str, tuple[str, Change]] = {code: ("auto", _coded(plan, code)) for code in CODES}
    wanted["sync"] = ("sync", lambda case: replace(case, eta=steps[case.scenario], patience=plan.patience))
    found = _rows(plan, pool, wanted)
    return [row for setting in plan.settings for row in _compared(setting, found)]


def _compared(setting: Setting, found: Found) -> Iterator[Row]:
    sync = found[setting, "sync"]
    fp32, int4, topk = (found[setting, code] for code in CODES)
    for name, row in (("sync fp32", sync), ("auto fp32", fp32), ("auto int4", int4), ("auto topk", topk)):
        yield at_most(f"{setting}: {name}, bytes to target, up", row.bytes_up / 1e6, "MB", None)
        yield at_most(f"{setting}: {name}, bytes to target, down", row.bytes_down / 1e6, "MB", None)
    yield at_most(f"G3 {setting}: int4 / sync fp32, bytes", ratio(_bytes(int4), _bytes(sync)), "x", INT4_BYTES)
    yield at_most(f"{setting}: int4 / sync fp32, bytes up", ratio(int4.bytes_up, sync.bytes_up), "x", None)
    yield at_most(f"G3 {setting}: int4 / fp32, updates", ratio(int4.updates, fp32.updates), "x", INT4_UPDATES)
    yield at_most(f"G3 {setting}: topk / sync fp32, bytes up", ratio(topk.bytes_up, sync.bytes_up), "x", TOPK_UP)
    yield at_most(f"{setting}: topk up, int4 down / sync fp32, bytes", ratio(_bytes(topk), _bytes(sync)), "x", None)
    yield at_most(f"G3 {setting}: topk / auto fp32, bytes up", ratio(topk.bytes_up, fp32.bytes_up), "x", TOPK_UP)
    yield at_most(f"{setting}: topk / fp32, updates", ratio(topk.updates, fp32.updates), "x", None)


def _coded(plan: Plan, code: str) -> Change:
    return lambda case: replace(case, codec=code, patience=plan.patience)


def _bytes(row: Summary) -> float:
    return row.bytes_up + row.bytes_down
