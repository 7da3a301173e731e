"""Pages say what the aggregator answers, in words, with every value escaped; without a broker and without HTTP."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedbus.console.fetch import AskedInVainError
from fedbus.core.protocol import answers as a
from fedbus.core.spec import kinds
from fedbus.errors import JobSpecError, Problem, UnansweredError
from fedbus.web.pages import abort, check, compare, left, scores, sites, submit
from fedbus.web.pages.seam import Asked, Goto, Page, Shown
from fedbus.web.render import html

from .fake_source import HEAD, NOW, SPEC, FakeSource, training

EVIL = '<script>alert("1")</script>\x1b[2J'
RUNNING, ENDED, COMPARED, CHECKED = "heart-0000aaaa", "heart-0000bbbb", "compare-0000cccc", "look-0000dddd"


async def shown(page: Page, source: FakeSource, asked: Asked) -> tuple[Shown, str]:
    found = await page(source, replace(asked, now=NOW))
    assert isinstance(found, Shown)
    return found, html(found.template, **({"may_submit": asked.may_submit} | dict(found.context)))


async def went(page: Page, source: FakeSource, asked: Asked) -> str:
    found = await page(source, replace(asked, now=NOW, may_submit=True))
    assert isinstance(found, Goto), found
    return found.path


async def test_sites_say_what_each_does_has_and_declines() -> None:
    _, text = await shown(sites.page, FakeSource(), Asked())
    assert "2 sites of 3 are online; lost: mercy (silent for 14 min)." in text
    assert "training, step 40 of 120" in text
    assert "14 updates · 303 samples" in text
    assert "cuda:0, 9.4 GB of 24.0 GB taken" in text
    assert "1 under way, 1 waiting for a place" in text
    assert "its clock is 14 min behind the aggregator&#39;s" in text
    assert "hours: 20:00 to 06:00" in text
    assert "0.8.2" in text


async def test_a_site_is_found_by_a_part_of_its_name_and_no_site_says_how_one_joins() -> None:
    _, found = await shown(sites.page, FakeSource(), Asked(query={"q": "UCS"}))
    assert 'id="site-ucsf"' in found
    assert 'id="site-mercy"' not in found
    _, nobody = await shown(sites.page, FakeSource(lines=[]), Asked())
    assert "No site has joined" in nobody


async def test_what_left_is_told_by_site_and_job_with_the_head_of_the_audit_log() -> None:
    _, text = await shown(left.page, FakeSource(), Asked())
    assert "29 updates of 1.2 MB in all left 3 sites." in text
    assert HEAD[:24] in text
    _, one = await shown(left.page, FakeSource(), Asked(query={"site": "ucsf"}))
    assert "14 updates of 574 kB in all left 1 site." in one
    assert "mercy</th>" not in one


async def test_findings_of_a_data_check_stand_worst_first_and_a_job_without_one_says_how_to_ask() -> None:
    _, text = await shown(check.page, FakeSource(), Asked(path={"job": CHECKED}))
    assert text.index("upside down") < text.index("few of class 2") < text.index("Nothing is known of the data of")
    _, none = await shown(check.page, FakeSource(), Asked(path={"job": RUNNING}))
    assert "This job checks no data." in none


async def test_the_matrix_has_every_model_at_every_site_and_who_could_not_score() -> None:
    _, text = await shown(scores.page, FakeSource(), Asked(path={"job": COMPARED}))
    assert "accuracy: ucsf, model 0: 0.810; ucsf, model 1: 0.840" in text
    assert "mercy could not score model 0" in text
    _, of_training = await shown(scores.page, FakeSource(), Asked(path={"job": ENDED}, may_submit=True))
    assert "The best version is 36" in of_training
    assert "Let every site score its models" in of_training
    _, read_only = await shown(scores.page, FakeSource(), Asked(path={"job": ENDED}))
    assert "Let every site score its models" not in read_only


async def test_every_site_scores_the_models_of_a_training_when_asked() -> None:
    source = FakeSource()
    path = await went(scores.score, source, Asked(path={"job": ENDED}))
    assert [spec.to_dict()["kind"] for spec in source.submitted] == ["evaluate"]
    assert path == f"/jobs/{source.submitted[0].name}-0000eeee"


async def test_two_jobs_stand_side_by_side_with_the_comparison_that_was_made() -> None:
    _, text = await shown(compare.page, FakeSource(), Asked(query={"a": RUNNING, "b": ENDED}))
    assert "A: heart-0000aaaa" in text
    assert "accuracy: A: heart-0000aaaa ends at" in text
    assert "Is B better than A?" in text
    assert "No difference in accuracy can be shown" in text
    wrong, words = await shown(compare.page, FakeSource(), Asked(query={"a": RUNNING, "b": "nothing"}))
    assert wrong.status == 400
    assert "no job &#39;nothing&#39;" in words


async def test_a_comparison_is_submitted_or_says_why_it_cannot_be() -> None:
    source = FakeSource()
    assert (await went(compare.compare, source, Asked(form={"a": RUNNING, "b": ENDED}))).endswith("/scores")
    assert source.submitted[0].to_dict()["compare"] is True
    found, text = await shown(compare.compare, FakeSource(), Asked(form={"a": RUNNING, "b": RUNNING}))
    assert found.status == 400
    assert "there is nothing to compare" in text


async def test_a_spec_is_checked_with_the_errors_and_paths_of_the_command_line() -> None:
    text = "name: heart\ntask: heart_disease\nlocal: {steps: -1}\nfoo: 1\n"
    with pytest.raises(JobSpecError) as same:
        kinds.parse_yaml(text)
    found, part = await shown(submit.check, FakeSource(), Asked(form={"spec": text}, part=True))
    assert found.template == "verdict.html"
    for problem in same.value.problems:
        assert f"<code>{problem.path}</code>" in part
    assert "local.batch_size" in part
    _, whole = await shown(submit.check, FakeSource(), Asked(form={"spec": text}, may_submit=True))
    assert "<textarea" in whole
    assert "local.batch_size" in whole


@pytest.mark.parametrize("name", submit.examples())
async def test_every_example_is_valid_and_says_who_could_take_it(name: str) -> None:
    _, text = await shown(submit.form, FakeSource(), Asked(query={"example": name}, may_submit=True))
    assert "The spec is valid" in text
    assert "could start now" in text or "could not start now" in text


async def test_a_job_is_submitted_as_it_stands_and_a_job_like_another_begins_with_its_spec() -> None:
    source = FakeSource()
    assert await went(submit.submit, source, Asked(form={"spec": submit.examples()["training"]})) == (
        "/jobs/heart-0000eeee"
    )
    _, text = await shown(submit.form, source, Asked(query={"like": RUNNING}, may_submit=True))
    assert f"learning_rate: {SPEC['local']['learning_rate']}" in text  # type: ignore[index]


async def test_what_the_aggregator_refuses_or_does_not_answer_keeps_the_text_and_says_so() -> None:
    refused = JobSpecError([Problem(path="initial_params", message="no such file")])
    form = {"spec": submit.examples()["training"]}
    found, text = await shown(submit.submit, FakeSource(trouble=refused), Asked(form=form, may_submit=True))
    assert found.status == 422
    assert "no such file" in text
    assert "name: heart" in text
    unanswered = UnansweredError("job heart-1 is published and waits")
    found, text = await shown(submit.submit, FakeSource(trouble=unanswered), Asked(form=form, may_submit=True))
    assert found.status == 503
    assert "is published and waits" in text


async def test_a_job_is_aborted_after_a_question_with_its_reason_cut() -> None:
    source = FakeSource()
    _, text = await shown(abort.question, source, Asked(path={"job": RUNNING}, may_submit=True))
    assert "Abort heart-0000aaaa?" in text
    assert await went(abort.abort, source, Asked(path={"job": RUNNING}, form={"reason": "x" * 900})) == (
        f"/jobs/{RUNNING}"
    )
    assert source.aborted == [(RUNNING, "x" * abort.MOST_REASON)]
    _, over = await shown(abort.question, source, Asked(path={"job": ENDED}, may_submit=True))
    assert "there is nothing to abort" in over
    with pytest.raises(AskedInVainError):
        await abort.question(source, Asked(path={"job": "nothing"}))


async def test_text_from_elsewhere_is_never_markup() -> None:
    line = a.SiteLine(
        site="mercy", state=EVIL, reason=EVIL, device=EVIL, fedbus_version=EVIL, tasks=(EVIL,),
        jobs={"heart-0000aaaa": a.Doing(activity=EVIL, detail=EVIL, device=EVIL)},
    )  # fmt: skip
    source = FakeSource(lines=[line], details=[training(name=EVIL, says=EVIL, task=EVIL, declined={"mercy": EVIL})])
    for page, asked in (
        (sites.page, Asked(query={"q": ""})),
        (sites.page, Asked(query={"q": EVIL})),
        (check.page, Asked(path={"job": RUNNING})),
        (scores.page, Asked(path={"job": RUNNING})),
        (abort.question, Asked(path={"job": RUNNING})),
        (submit.check, Asked(form={"spec": EVIL}, part=True)),
        (submit.check, Asked(form={"spec": EVIL})),
        (compare.page, Asked(query={"a": EVIL, "b": EVIL})),
        (left.page, Asked(query={"site": EVIL, "job": EVIL})),
    ):
        _, text = await shown(page, source, asked)
        assert "<script>alert" not in text, page
        assert "\x1b" not in text, page
