"""What a hospital's policy says against a job, and what it lets leave."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.job.hospital import (
    Submission,
    against_update,
    is_open,
    opens_at,
    reasons_against,
    score_left,
    statistics_left,
    without_metrics,
)
from fedbus.core.job.policy import Decline, SitePolicy
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.spread import Spread
from fedbus.core.protocol.statistics import ClassLoss, Statistics
from fedbus.core.spec import kinds
from fedbus.core.spec.site_policy import HospitalPolicy, Window, parse_policy, window_of
from fedbus.errors import Problem

SUBMITTED = Submission(submitter="alice", fingerprint="3f2a-91bc-0000-ffff")
TEXT = """
format = 1
jobs = {submitters = [{name = "alice", fingerprint = "3f2a-91bc-0000-ffff"}], kinds = ["training"],
    min_contributors = 3, min_batch_size = 8, min_examples = 50, max_steps_per_update = 100, max_steps_per_day = 1000}
privacy = {filters = []}
hours = {zone = "Europe/Berlin", open = ["mon-fri 19:00-07:00"]}
out = {bytes_per_day = 1000, metrics = ["auc", "dice*"], intervals = false, statistics = false, prints = false,
    local_models = false}
[tasks.heart]
data = ["hearts-2026"]
params = {"local.steps" = {min = 1, max = 100}, "local.batch_size" = [16, 32], "local.learning_rate" = "any",
    "task_config.net.width" = {min = 8, max = 64}, "task_config.norm" = ["batch", "group"]}
"""


def policy_of(**sections: Any) -> HospitalPolicy:
    """That policy, with other values for some keys of some sections."""
    data = tomllib.loads(TEXT.replace(",\n    ", ", "))
    for name, keys in sections.items():
        data[name] |= keys
    found = parse_policy(data)
    assert isinstance(found, HospitalPolicy), found
    return found


def reasons(policy: HospitalPolicy, submission: Submission = SUBMITTED, **changes: Any) -> list[str]:
    tags = changes.pop("tags", ("hearts-2026",))
    local = {"steps": 50, "batch_size": 16, "learning_rate": 0.1} | changes.pop("local", {})
    spec = {"name": "j", "task": "heart", "local": local, "stop": {"versions": 1}, "min_contributors": 3} | changes
    if spec.get("kind", "training") != "training":
        spec = {key: value for key, value in spec.items() if key not in ("local", "stop", "min_contributors")}
    return list(reasons_against(policy, kinds.parse(spec), submission, data_tags=tags))


def test_a_job_within_the_policy_meets_no_reason() -> None:
    assert reasons(policy_of(), task_config={"net": {"width": [8, 64]}, "norm": "group"}) == []


def test_a_task_whose_params_are_any_lets_a_job_set_everything() -> None:
    policy = policy_of(tasks={"heart": {"data": "any", "params": "any"}})

    assert reasons(policy, local={"proximal_mu": 0.1}, task_config={"deep": {"er": 1}}) == []


@pytest.mark.parametrize("name", ["local.stepz", "local.*", "task_config.[ab]", "local.steps.a", "steps"])
def test_a_param_that_no_job_can_set_is_refused_when_the_file_is_read(name: str) -> None:
    data = tomllib.loads(TEXT.replace(",\n    ", ", "))
    data["tasks"]["heart"]["params"] = {name: "any"}

    assert isinstance(parse_policy(data), list)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"submission": Submission(submitter="bob")}, "allows no jobs of submitter 'bob'"),
        ({"submission": Submission(submitter="alice")}, "the job is not signed"),
        ({"submission": replace(SUBMITTED, fingerprint="0000-0000-0000-0000")}, "signed with key 0000-0000"),
        ({"tags": ()}, "the site's data have no tag"),
        ({"tags": ("hearts-2026", "kidneys")}, "does not allow task heart the data"),
        ({"local": {"batch_size": 64}}, "local.batch_size is 64, this site's policy allows [16, 32]"),
        ({"local": {"steps": 101}}, "local.steps is 101, this site's policy allows 1 to 100"),
        ({"local": {"steps": None, "epochs": 1.0}}, "give the budget as local.steps"),
        (
            {"local": {"proximal_mu": 0.1}},
            "lets no job set local.proximal_mu: the site would list it under [tasks.heart]",
        ),
        (
            {"local": {"proximal_mu": 0.1}, "task_config": {"a": 1}},
            "lets no job set task_config.a, local.proximal_mu: ",
        ),
        ({"task_config": {"deep": {"er": 1}}}, "lets no job set task_config.deep.er"),
        ({"task_config": {"norm": "layer"}}, "task_config.norm is 'layer'"),
        ({"task_config": {"net": {"width": [8, 65]}}}, "task_config.net.width is [8, 65]"),
        ({"task_config": {"net": {"width": True}}}, "task_config.net.width is True"),
        ({"task_config": {"net": {"width": "8"}}}, "task_config.net.width is '8'"),
        ({"check": "required"}, "lets no statistics of its data leave"),
        ({"kind": "evaluate", "models": [{"file": "a"}]}, "allows no jobs of kind evaluate"),
        ({"kind": "data-check"}, "allows no jobs of kind data-check"),
    ],
)
def test_a_reason_says_what_the_policy_does_not_allow(changes: dict[str, Any], reason: str) -> None:
    said = reasons(policy_of(), **changes)

    assert any(reason in one for one in said), said


def test_a_filter_that_no_job_can_promise_refuses_every_training() -> None:
    (said,) = reasons(policy_of(privacy={"filters": ["dp-sgd"]}))
    assert said == "this site's policy asks for dp-sgd on every update, which no job of this release promises"


def test_all_reasons_are_said_and_the_stricter_of_settings_and_policy_counts() -> None:
    installed = frozenset({"heart", "brain"})
    site = SitePolicy(site="va", installed_tasks=installed, min_batch_size=20, hospital=policy_of())
    spec = {"name": "j", "task": "heart", "local": {"steps": 500, "batch_size": 16, "learning_rate": 0.1}}

    answer = site.decide_offer(spec | {"stop": {"versions": 1}}, SUBMITTED)

    assert site.tasks == ("heart",)
    assert isinstance(answer, Decline)
    for part in ("below this site's minimum of 20", "takes part from 3 sites on", "local.steps is 500", "have no tag"):
        assert part in answer.reason


def test_a_site_that_is_shut_offers_nothing_and_declines_with_the_one_reason() -> None:
    site = SitePolicy(site="va", installed_tasks=frozenset({"heart"}), shut="the site's policy cannot be read")
    assert site.tasks == ()
    spec = {"name": "j", "task": "x", "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1}}
    assert site.decide_offer(spec | {"stop": {"versions": 1}}) == Decline(reason="the site's policy cannot be read")


# -------------------------------------------------------------- what leaves


def manifest(kind: m.UpdateKind = m.UpdateKind.DELTA, **effort: Any) -> m.UpdateManifest:
    return m.UpdateManifest(
        job="j",
        update_id="va:00000000:0",
        kind=kind,
        base_version=0,
        effort=Effort(**({"num_examples": 50, "steps": 100} | effort)),
        layout_digest="",
        frames=1,
        body_bytes=10,
    )


@pytest.mark.parametrize(
    ("update", "may"),
    [
        (manifest(), True),
        (manifest(num_examples=49), False),
        (manifest(steps=101), False),
        (manifest(steps=0), False),  # not said
        (manifest(m.UpdateKind.INITIAL, num_examples=0, steps=0), True),
        (manifest(m.UpdateKind.LOCAL), False),
    ],
)
def test_an_update_leaves_only_with_enough_examples_and_few_enough_steps(update: m.UpdateManifest, may: bool) -> None:
    assert (against_update(policy_of(), update) is None) is may


def test_metrics_leave_by_name() -> None:
    update = manifest(metrics={"auc": 0.5, "dice/1": 0.4, "patients": 7.0})
    assert without_metrics(policy_of().out, update).effort.metrics == {"auc": 0.5, "dice/1": 0.4}


def test_of_a_score_leaves_what_the_policy_names() -> None:
    score = m.ScoreAnswer(
        site="va",
        job="j",
        version=1,
        metrics={"auc": 0.5, "loss": 0.1},
        num_examples=9,
        not_finite=("dice", "x"),
        spreads={"auc": Spread(value=0.5)},
        losses={"1": ClassLoss(examples=5)},
        local="va:00000000:1",
    )

    left = score_left(policy_of().out, score)

    assert left == replace(score, metrics={"auc": 0.5}, not_finite=("dice",), spreads={}, losses={}, local="")
    none = score_left(policy_of(out={"metrics": ["f1"]}).out, score)
    assert (none.metrics, none.num_examples) == ({}, 0)
    assert none.failed


def test_of_statistics_leaves_what_the_policy_says() -> None:
    answer = m.StatisticsAnswer(site="va", job="j", asked="1", statistics=Statistics(examples=9, prints=("0" * 16,)))
    assert statistics_left(policy_of().out, answer).statistics is None
    without_prints = statistics_left(policy_of(out={"statistics": True}).out, answer).statistics
    assert without_prints == Statistics(examples=9)
    assert statistics_left(policy_of(out={"statistics": True, "prints": True}).out, answer) == answer


# -------------------------------------------------------------- hours


@pytest.mark.parametrize(
    ("at", "is_so", "opens"),
    [
        ("2026-11-30 18:59", False, "mon 19:00"),  # a Monday
        ("2026-11-30 19:00", True, "tue 19:00"),
        ("2026-12-01 06:59", True, "tue 19:00"),
        ("2026-12-01 07:00", False, "tue 19:00"),
        ("2026-12-05 06:59", True, "mon 19:00"),  # Saturday: the night of Friday
        ("2026-12-05 19:30", False, "mon 19:00"),
        ("2026-11-30 06:00", False, "mon 19:00"),  # the night of Sunday is not open
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_begins_on(at: str, is_so: bool, opens: str) -> None:
    windows = policy_of().hours.open
    assert is_open(windows, datetime.fromisoformat(at)) is is_so
    assert opens_at(windows, datetime.fromisoformat(at)) == opens


@given(st.datetimes(), st.text("montuewdhfrisa,-: 0123456789", max_size=30))
def test_hours_are_read_or_refused(at: datetime, text: str) -> None:
    try:
        window = window_of(text)
    except ValueError:
        return
    assert isinstance(window, Window)
    assert opens_at([window], at)
    assert is_open([window], at) in (True, False)


def test_no_window_never_opens() -> None:
    assert not is_open([], datetime(2026, 1, 1))
    assert opens_at([], datetime(2026, 1, 1)) == ""


# -------------------------------------------------------------- the form

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.datetimes() | st.just("any"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@given(st.data(), VALUES)
def test_whatever_stands_in_a_key_the_policy_is_read_or_refused_in_words(data: st.DataObject, value: Any) -> None:
    policy: Any = tomllib.loads(TEXT.replace(",\n    ", ", "))
    section, key = policy, data.draw(st.sampled_from(sorted(policy)))
    while isinstance(section[key], dict) and data.draw(st.booleans()):
        section = section[key]
        key = data.draw(st.sampled_from(sorted(section)))
    section[key] = value

    found = parse_policy(policy)

    assert isinstance(found, HospitalPolicy) or all(isinstance(one, Problem) and one.message for one in found)


@given(st.dictionaries(st.text(max_size=10), VALUES, max_size=5))
def test_whatever_a_file_holds_is_read_or_refused_in_words(data: dict[str, Any]) -> None:
    assert isinstance(parse_policy(data), list)


def test_the_file_that_comes_with_fedbus_is_a_policy() -> None:
    text = (Path(__file__).parents[2] / "services" / "site" / "policy.toml").read_text()
    found = parse_policy(tomllib.loads(text))
    assert isinstance(found, HospitalPolicy), found
    page = (Path(__file__).parents[2] / "deploy" / "docs" / "policy.md").read_text()
    for section, field in HospitalPolicy.model_fields.items():
        for key in getattr(field.annotation, "model_fields", {section: None}):
            assert f"`{key}`" in page, key
