from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from fedbus.bench.time_to_target import cases, experiments, peers
from fedbus.bench.time_to_target.cases import Case, Outcome, run_case
from fedbus.bench.time_to_target.goals import goal_rows
from fedbus.bench.time_to_target.plan import Plan, Setting, Summary, best_etas, summaries
from fedbus.bench.time_to_target.pool import Pool, Results
from fedbus.bench.time_to_target.rules import RULES, VARIANTS
from fedbus.bench.time_to_target.scenarios import ATTACK, LATE_AT_S, SCENARIOS, TROUBLES
from fedbus.bench.time_to_target.table import as_data, markdown
from fedbus.cli.commands import app
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.spec.sections import RobustKind
from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation.rules import Production
from fedbus.simulation.trainer import Trained
from fedbus.tensors.codec import encode

ROBUST = {f"auto-{kind}" for kind in get_args(RobustKind)}
HEART = Setting(scenario="heart")
TINY = Case(scenario="heart", rule="fedbuff", eta=1.0, seed=0, until_s=6.0)


@pytest.fixture
def easy_target(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A target that heart reaches within seconds."""
    monkeypatch.setitem(SCENARIOS, "heart", replace(SCENARIOS["heart"], target=0.60))  # type: ignore[misc]
    yield
    cases._tasks.cache_clear()


def pool(results: Results | None = None, said: list[str] | None = None) -> Pool:
    return Pool(results or Results(None), workers=1, say=(said if said is not None else []).append)


def outcome(time_s: float | None, *, rule: str = "auto", eta: float | None = None, rare: float = 0.9) -> Outcome:
    case = Case(scenario="digits-b", rule=rule, eta=eta, seed=0)
    return Outcome(
        case=case,
        time_s=time_s,
        updates=None if time_s is None else 10,
        bytes_up=None if time_s is None else 100,
        bytes_down=None if time_s is None else 100,
        final=0.95,
        rare=rare,
        all_updates=10,
        reason="",
        cpu_s=1.0,
    )


def line(rule: str, times: Sequence[float | None], *, rare: float = 0.9, ratio: float = 10.0) -> Summary:
    setting = Setting(scenario="digits-b", ratio=ratio)
    outcomes = tuple(outcome(time_s, rule=rule, rare=rare) for time_s in times)
    return Summary(setting=setting, rule=rule, eta=None, outcomes=outcomes)


# ------------------------------------------------------------------ one run


def test_a_case_gives_the_same_outcome_every_time() -> None:
    first, second = run_case(TINY), run_case(TINY)

    assert replace(first, cpu_s=0.0) == replace(second, cpu_s=0.0)


@pytest.mark.usefixtures("easy_target")
def test_a_run_ends_when_the_target_is_held_unless_final_scores_are_asked_for() -> None:
    case = replace(TINY, until_s=30.0)

    short, whole = run_case(case), run_case(replace(case, to_end=True))

    assert short.time_s is not None
    assert (short.time_s, short.updates, short.bytes_up) == (whole.time_s, whole.updates, whole.bytes_up)
    assert short.all_updates < whole.all_updates
    assert short.final is None
    assert whole.final is not None


@pytest.mark.usefixtures("easy_target")
def test_a_patient_run_reaches_a_target_after_the_limit_and_its_final_score_is_that_at_the_limit() -> None:
    reached_at = run_case(replace(TINY, until_s=30.0)).time_s
    assert reached_at is not None
    case = replace(TINY, until_s=reached_at - 1)

    impatient, patient = run_case(case), run_case(replace(case, patience=5.0))

    assert impatient.time_s is None
    assert patient.time_s == reached_at
    assert patient.final == impatient.final


@pytest.mark.parametrize(
    "name", [name for name, rule in (RULES | VARIANTS).items() if not rule.is_peer and name not in ROBUST]
)
def test_every_rule_of_ours_and_of_the_textbook_runs(name: str) -> None:
    rule = (RULES | VARIANTS)[name]

    found = run_case(replace(TINY, rule=name, eta=rule.grid[0] if rule.grid else None, until_s=12.0))

    assert found.all_updates >= 4
    assert found.reason == "12 virtual seconds are over"


@pytest.mark.skipif(not peers.installed(), reason="the peers live in .venv-peers: run deploy/bench-peers")
@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if rule.is_peer])
def test_every_peer_runs_in_the_same_loop(name: str) -> None:
    assert run_case(replace(TINY, rule=name, eta=0.5, until_s=12.0)).reason == "12 virtual seconds are over"


def test_textbook_fedbuff_is_the_mean_of_discounted_deltas_whatever_the_sites_sizes() -> None:
    scenario = replace(SCENARIOS["digits-a"], sites=6)
    assert scenario.buffer == 2
    job = {**scenario.spec(seed=0, lr_factor=1.0), "codec": {"up": "fp32", "down": "fp32"}}
    spec = TrainingSpec.parse({**job, **RULES["fedbuff"].spec(scenario, 0.5)})
    layout = Layout.of([TensorSpec(name="w", shape=(3,), dtype="float32")])
    server = Production(spec, layout, torch.zeros(3))
    server.set_active([f"site-{n}" for n in range(6)], now=0.0)

    def send(site: str, sequence: int, base_version: int, delta: Tensor) -> None:
        update_id = UpdateId(site=site, incarnation="00000000", sequence=sequence)
        frames = tuple(encode(delta, layout, Code.FP32, seed=0))
        examples = 10 * sequence
        update = Trained(
            update_id=update_id,
            base_version=base_version,
            effort=Effort(num_examples=examples, steps=1, seconds=1.0),
            frames=frames,
        )
        server.take(update, base=None, now=1.0)
        server.commit_if_due(now=1.0)

    one, two, three = torch.eye(3)
    send("site-0", 1, 0, one)
    send("site-0", 2, 0, two)
    send("site-1", 1, 0, three)
    send("site-0", 3, 1, one)

    late = 2**-0.5
    torch.testing.assert_close(server.params, 0.5 / 2 * (one + two) + 0.5 / 2 * (late * three + one))


# ------------------------------------------------------------------ many runs


def test_outcomes_in_the_file_are_not_run_again_and_a_line_cut_off_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    wanted = [TINY, replace(TINY, seed=1)]
    first = pool(Results(path)).outcomes(wanted)
    text = path.read_text()
    path.write_text(text + text[:40])
    said: list[str] = []

    second = pool(Results(path), said).outcomes([*wanted, replace(TINY, seed=2)])

    assert second[:2] == first
    assert len(said) == 1
    assert "seed 2" in said[0]


@pytest.mark.usefixtures("easy_target")
def test_a_run_to_the_end_answers_for_one_that_may_stop_but_not_the_other_way_round() -> None:
    results = Results(None)
    case = replace(TINY, until_s=20.0)
    results.add(run_case(case))
    assert results.get(replace(case, to_end=True)) is None

    results.add(run_case(replace(case, to_end=True)))

    assert results.get(case) == results.get(replace(case, to_end=True))


def test_two_processes_find_what_one_finds() -> None:
    wanted = [TINY, replace(TINY, seed=1)]
    both = Pool(Results(None), workers=2, say=lambda line: None)
    try:
        found = both.outcomes(wanted)
    finally:
        both.close()

    assert [replace(o, cpu_s=0.0) for o in found] == [replace(o, cpu_s=0.0) for o in pool().outcomes(wanted)]


@pytest.mark.usefixtures("easy_target")
def test_each_rule_is_shown_at_its_own_best_step() -> None:
    plan = Plan(settings=[HEART], rules=["sync", "fedbuff"], seeds=2, etas=[0.1, 0.5, 2.0], until_s=40.0)
    runner = pool()

    rows = summaries(plan, runner)

    assert {row.rule: row.eta for row in rows} == {rule: eta for (_, rule), eta in best_etas(plan, runner).items()}
    for row in rows:
        others = [runner.outcomes([plan.case(HEART, row.rule, eta, 0)])[0].time_s for eta in (0.1, 0.5, 2.0)]
        assert row.outcomes[0].time_s == min(math.inf if t is None else t for t in others)


# ------------------------------------------------------------------ what is shown


def test_a_seed_that_misses_the_target_counts_as_never_and_not_as_nothing() -> None:
    assert line("auto", [40.0, None, 60.0]).time_s == 60.0
    assert line("auto", [40.0, None, None]).time_s == math.inf
    assert line("auto", [10.0, 20.0, 30.0, 40.0, None]).quartiles_s == (20.0, 40.0)


def test_goals_compare_auto_with_each_rule_in_the_same_setting() -> None:
    rows = [
        line("auto", [40.0], rare=0.93),
        line("sync", [200.0], rare=0.85),
        line("fedbuff", [70.0]),
        line("appfl-fedbuff", [None]),
        line("auto", [20.0], ratio=1.0),
        line("sync", [18.0], ratio=1.0),
    ]

    goals = {row["case"]: (row["value"], row["met"]) for row in goal_rows(rows)}

    assert goals == {
        "G1 digits-b: auto / sync, time to target": (0.2, True),
        "G1 digits-b: auto / fedbuff, time to target": (0.5714, False),
        "G1 digits-b: auto / appfl-fedbuff, time to target": (0.1, True),  # it ran for 400 s
        "G2 digits-b: auto, accuracy on rare classes": (0.93, True),
        "G2 digits-b: the same - sync's": (0.08, True),
        "G4 digits-b, ratio 1: auto / sync, time to target": (1.1111, True),
    }


def test_a_goal_is_missed_when_auto_never_arrives() -> None:
    (row,) = [r for r in goal_rows([line("auto", [None]), line("sync", [None])]) if r["case"].startswith("G1")]

    assert row["value"] == math.inf
    assert row["met"] is False


def test_the_table_of_the_readme_has_a_line_per_rule_and_a_column_per_setting() -> None:
    rows = [line("auto", [40.0, 42.0, 50.0]), line("fedbuff", [None, None, 50.0]), line("auto", [20.0], ratio=1.0)]

    assert markdown(rows).splitlines() == [
        "| rule | digits-b: s → 90% | digits-b, ratio 1: s → 90% |",
        "|---|---|---|",
        "| fedbus auto (no knob) | 42 (40–50); final 0.950; rare 0.900 | 20 (20–20); final 0.950; rare 0.900 |",  # noqa: RUF001
        "| FedBuff as published | never; final 0.950; rare 0.900 |  |",
    ]
    assert as_data(rows)[1]["reached"] == 1
    json.dumps(as_data(rows), allow_nan=False)


# ------------------------------------------------------------------ trouble, commands


def test_attackers_send_the_opposite_and_late_sites_are_those_with_the_rare_classes() -> None:
    names = [f"site-{number}" for number in range(12)]
    transform = TROUBLES["attack"].transform(names)
    assert transform is not None

    changed = [name for name in names if transform(name, torch.ones(1)).item() == ATTACK]
    late = {name: there.joins_at for name, there in TROUBLES["late"].presence(names, 10.0).items()}

    assert len(changed) == 2
    assert late == dict.fromkeys(names[-3:], LATE_AT_S)


@pytest.mark.parametrize("robust", sorted(ROBUST))
def test_every_robust_rule_ends_above_what_two_attackers_leave_of_the_default(robust: str) -> None:
    calm = Case(scenario="digits-a", rule="auto", eta=None, seed=0, until_s=60.0, to_end=True)

    attacked, defended = (run_case(replace(calm, rule=rule, trouble="attack")).final for rule in ("auto", robust))

    assert attacked is not None
    assert defended is not None
    assert attacked < defended


def test_the_command_prints_rows_and_goals_as_json(tmp_path: Path) -> None:
    command = ["bench", "time-to-target", "--scenario", "heart", "--rule", "sync", "--rule", "auto", "--seeds", "1"]
    few = ["--eta", "1", "--until", "6", "--workers", "1", "--results", str(tmp_path / "r.jsonl"), "-o", "json"]

    ran = CliRunner().invoke(app, [*command, *few])

    assert ran.exit_code == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert [(row["rule"], row["eta"]) for row in found["rows"]] == [("sync", 1.0), ("auto", None)]


@pytest.mark.skipif(peers.installed(), reason="the peers are installed here")
def test_asking_for_peers_without_them_says_where_they_come_from() -> None:
    ran = CliRunner().invoke(app, ["bench", "time-to-target", "--scenario", "heart", "--peers"])

    assert ran.exit_code != 0
    assert "deploy/bench-peers" in str(ran.exception)


def test_an_unknown_scenario_or_rule_is_answered_with_those_that_exist() -> None:
    for option, name in (("--scenario", "digits"), ("--rule", "fedavg")):
        ran = CliRunner().invoke(app, ["bench", "time-to-target", option, name])

        assert ran.exit_code != 0
        assert "expected one of" in str(ran.exception)


def test_no_knob_says_how_far_auto_is_from_the_best_step() -> None:
    options = ["--scenario", "heart", "--local-lr-factor", "1", "--ratio", "10", "--seeds", "1", "--eta", "1"]

    ran = CliRunner().invoke(app, ["bench", "no-knob", *options, "--until", "60", "--workers", "1", "-o", "json"])

    assert ran.exit_code == 0, ran.stderr
    said = [row["case"] for row in json.loads(ran.stdout)]
    assert "heart: final score of auto - sync's" in said
    assert any(case.startswith(("heart: auto / best step", "heart: nothing reaches")) for case in said)


def test_churn_and_late_sites_are_compared_with_their_goals() -> None:
    few = ["--scenario", "heart", "--seeds", "1", "--workers", "1", "-o", "json"]

    churned = CliRunner().invoke(app, ["bench", "churn", *few, "--until", "20"])
    late = CliRunner().invoke(app, ["bench", "late-join", *few, "--rule", "auto", "--until", "110"])

    calm_cost = json.loads(churned.stdout)[1]
    assert calm_cost["case"] == "G5 heart: what 25 % churn costs"
    assert calm_cost["met"] is (calm_cost["value"] <= 0.005)
    (row,) = json.loads(late.stdout)
    assert row["case"] == "G6 heart: auto, rare sites join → target"
    assert row["goal"] == 3.5


def test_an_attack_needs_as_many_sites_as_it_names() -> None:
    ran = CliRunner().invoke(app, ["bench", "attack", "--scenario", "heart", "--seeds", "1", "--workers", "1"])

    assert "expected more than 4 sites" in str(ran.exception)


def test_bytes_are_compared_with_fp32_and_with_sync() -> None:
    names = {"fp32": [40.0], "int4": [40.0], "topk": [None], "sync": [200.0]}
    found = {(Setting(scenario="digits-b"), name): line("auto", times) for name, times in names.items()}

    rows = {row["case"]: row for row in experiments._compared(Setting(scenario="digits-b"), found)}

    assert rows["G3 digits-b: int4 / sync fp32, bytes"]["met"] is False
    assert rows["G3 digits-b: int4 / fp32, updates"]["met"] is True
    assert rows["G3 digits-b: topk / auto fp32, bytes up"]["value"] == math.inf
