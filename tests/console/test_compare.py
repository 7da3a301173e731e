"""A comparison in words: what is shown, what is not, and what it is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from fedbus.cli.commands import app
from fedbus.cli.score_tables import comparison_tables
from fedbus.cli.tables import job_tables, print_tables
from fedbus.console.compare import LEFT_OUT, as_data, comparisons_of, sentences, usual_question, verdict
from fedbus.console.report.job import job_page
from fedbus.core.protocol import answers as a
from fedbus.errors import SettingsError
from fedbus.report.page import as_html

BETTER = a.Interval(value=0.021, low=0.008, high=0.034, cases=51, sites=3)
UNSURE = a.Interval(value=0.012, low=-0.02, high=0.05, cases=20)


def scored(auc: float, *, difference: a.Interval | None = None, examples: int = 20) -> a.SiteScore:
    return a.SiteScore(
        metrics={"auc": auc, "loss": 0.5},
        num_examples=examples,
        intervals={"auc": a.Interval(value=auc, low=auc - 0.05, high=auc + 0.05, cases=examples)},
        differences={} if difference is None else {"auc": difference, "loss": UNSURE},
    )


def a_comparison(**spec: Any) -> a.JobDetail:
    shown = a.Interval(value=0.03, low=0.01, high=0.05, cases=20)
    first = a.ScoredModel(
        model="manual-1, version 9 (best)",
        means={"auc": 0.7, "loss": 0.5},
        scores={"mercy": scored(0.7), "ucsf": scored(0.7), "va": scored(0.7), "mayo": scored(0.7)},
    )
    second = a.ScoredModel(
        model="assisted-2, version 7 (best)",
        means={"auc": 0.721, "loss": 0.5},
        scores={"mercy": scored(0.73, difference=shown), "ucsf": scored(0.71, difference=UNSURE), "va": scored(0.7)},
        failed={"mayo": "DataError in score"},
        intervals={"auc": a.Interval(value=0.721, low=0.6, high=0.8, cases=60, sites=3)},
        differences={"auc": BETTER, "loss": UNSURE},
    )
    return a.JobDetail(
        job="compare-1",
        state="finished",
        spec={"kind": "evaluate", "compare": True, **spec},
        result={"models": [a.as_json(first), a.as_json(second)]},
    )


def test_a_comparison_says_who_is_better_by_how_much_and_where_nothing_can_be_shown() -> None:
    (found,) = comparisons_of(a_comparison())
    assert sentences(found) == [
        "B is better than A by 0.021 auc (95 % interval of B less A +0.008 to +0.034) over 3 sites, 51 cases.",
        "At mercy B is better.",
        "At ucsf no difference can be shown.",
        "mayo is not part of it: it could not score B: DataError in score.",
        "va is not part of it: it says no paired difference: its release, its task or a restart between the two"
        " models.",
        "6 intervals are given: of so many about 1 would miss 0 by chance alone. The question is the one above; the "
        "others are beside it.",
    ]


def test_the_question_is_what_the_job_names_and_an_interval_with_0_shows_no_difference() -> None:
    (found,) = comparisons_of(a_comparison(metric="loss"))
    assert [one.metric for one in found.differences] == ["loss", "auc"]
    assert sentences(found)[0] == (
        "No difference in loss can be shown between A and B: B less A is +0.012 (95 % interval of B less A -0.020 to "
        "+0.050) over 1 site, 20 cases."
    )


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "says"),
    [
        ("dice/anterior", 0.2, 0.1, 0.3, "better"),
        ("dice/anterior", -0.2, -0.3, -0.1, "worse"),
        ("loss", -0.2, -0.3, -0.1, "better"),
        ("hausdorff95", 2.0, 1.0, 3.0, "worse"),
        ("width", 0.2, 0.1, 0.3, "higher"),
        ("width", -0.2, -0.3, -0.1, "lower"),
        ("dice", 0.1, 0.0, 0.2, "no difference can be shown"),
        ("dice", 0.0, 0.0, 0.0, "no difference can be shown"),
    ],
)
def test_a_verdict_knows_of_which_metrics_more_is_better(
    metric: str, value: float, low: float, high: float, says: str
) -> None:
    assert verdict(metric, a.Interval(value=value, low=low, high=high, cases=9)) == says


def test_what_is_not_known_is_no_difference_of_0() -> None:
    assert verdict("dice", a.Interval(value=0.1)) == "not known: too few test cases"
    assert verdict("dice", a.Interval(value=0.1, cases=9)) == "not known"


def test_nothing_is_compared_where_the_job_did_not_ask_for_it() -> None:
    assert comparisons_of(a_comparison(compare=False)) == []
    assert usual_question(["loss", "dice/left", "dice"]) == "dice"
    assert usual_question(["mse", "mae"]) == "mse"
    assert usual_question([]) is None


def test_tables_fit_80_columns_and_json_has_the_same_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (found,) = comparisons_of(a_comparison())
    print_tables(*comparison_tables(found), *job_tables(a_comparison()))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "ucsf              20     +0.012 [-0.020, +0.050]  no difference can be shown" in out
    assert "mercy             20        0.700 [0.650, 0.750]  0.730 [0.680, 0.780]" in out
    data: Any = as_data(found)
    assert data["sentences"] == sentences(found)
    assert data["differences"][0]["sites"]["ucsf"]["says"] == "no difference can be shown"


def test_intervals_of_single_sites_that_were_too_many_are_said_to_be_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # given an answer that has what is over the sites only
    detail = a_comparison()
    models = [a.from_json(a.ScoredModel, model) for model in (detail.result or {})["models"]]
    bare = [
        replace(m, scores={site: replace(s, intervals={}, differences={}) for site, s in m.scores.items()})
        for m in models
    ]
    detail = replace(detail, result={"models": [a.as_json(model) for model in bare]})
    # then the question is answered, and no site is blamed for what it did say
    (found,) = comparisons_of(detail)
    assert sentences(found)[:3] == [
        "B is better than A by 0.021 auc (95 % interval of B less A +0.008 to +0.034) over 3 sites, 51 cases.",
        LEFT_OUT,
        "mayo is not part of it: it could not score B: DataError in score.",
    ]
    print_tables(*job_tables(detail))
    assert capsys.readouterr().out.replace("\n", " ").count("Intervals of single sites are left out") == 2
    assert LEFT_OUT in as_html(job_page(detail, (), now=400.0))
    # and where sites have intervals nothing is said
    assert LEFT_OUT not in as_html(job_page(a_comparison(), (), now=400.0))


def test_the_page_answers_first() -> None:
    html = as_html(job_page(a_comparison(), (), now=400.0))
    assert html.index("B is better than A by 0.021 auc") < html.index("What the sites measured")
    assert "over 3 sites" in html
    assert "0.68 to 0.78" in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give two trainings"),
        (["a"], "--version: give it twice"),
        (["a", "b", "c"], "give two trainings"),
        (["a", "b", "--version", "newest"], "--version: expected best, last or the number of a version, got newest"),
        (["a", "--job", "b"], "give two trainings"),
        (["a", "b", "--to", "page.pdf"], "a report is a file .html or .json"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anybody_is_asked(arguments: list[str], message: str) -> None:
    failed = CliRunner().invoke(app, ["compare", *arguments]).exception
    assert isinstance(failed, SettingsError)
    assert message in str(failed)
