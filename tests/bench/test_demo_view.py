"""What a demo tells and shows, from given events; nothing runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fedbus.core.protocol import events
from fedbus.core.protocol.answers import JobDetail, SiteInJob
from fedbus.core.protocol.messages import Event
from fedbus.demo.job import PACE_S, Cohort, demo_job, hand_out
from fedbus.demo.report import facts_of, report
from fedbus.demo.story import Story
from fedbus.demo.view import live, plain_lines, screen
from fedbus.tasks.heart_disease_data import HOSPITALS

BASELINES = {
    "local_only": {"cleveland": 0.883, "hungary": 0.921, "switzerland": 0.691, "va-long-beach": 0.604},
    "pooled": {"cleveland": 0.881, "hungary": 0.917, "switzerland": 0.676, "va-long-beach": 0.742},
}
FEDERATED = {"cleveland": 0.878, "hungary": 0.929, "switzerland": 0.662, "va-long-beach": 0.705}


def event(kind: str, site: str = "-", text: str = "", **facts: object) -> Event:
    return Event(at=0.0, job="heart-demo-abc123", site=site, kind=kind, text=text, facts=facts)


def folded(site: str, number: int, *, staleness: int = 0) -> Event:
    update = f"{site}:a1b2c3d4:{number}"
    return event(events.UpdateFolded.kind, site, staleness=staleness, body_bytes=100, update=update)


def committed(version: int, *updates: Event) -> Event:
    ids = [update.facts["update"] for update in updates]
    return event(events.VersionCommitted.kind, version=version, updates=ids, body_bytes=125)


def scored(site: str, auc: float) -> Event:
    return event(events.VersionScored.kind, site, version=1, metrics={"auc": auc, "loss": 0.5}, num_examples=90)


@pytest.fixture
def story() -> Story:
    cohorts = {name: Cohort(patients=300, test_patients=90, healthy=45, ill=45) for name in HOSPITALS}
    cohorts["switzerland"] = Cohort(patients=123, test_patients=36, healthy=2, ill=34)
    return Story(cohorts, versions=40, clock=lambda: 0.0)


def begin(story: Story) -> None:
    story.take(event(events.JobSubmitted.kind, text="submitter submitted task heart_disease"))
    for site in ("cleveland", "hungary", "switzerland"):
        story.take(event(events.SiteAccepted.kind, site))
    story.take(event(events.JobRunning.kind, text="training begins with cleveland, hungary, switzerland"))


def play(story: Story) -> None:
    """One joins late, one leaves and comes back; three versions."""
    begin(story)
    first, second = folded("cleveland", 0), folded("hungary", 0, staleness=2)
    for happened in (first, second, committed(1, first, second)):
        story.take(happened)
    story.take(event(events.SiteJoined.kind, "va-long-beach"))
    story.take(event(events.SiteAccepted.kind, "va-long-beach"))
    story.take(event(events.SiteLeft.kind, "hungary", "hungary left: stopped"))
    third, fourth = folded("va-long-beach", 0), folded("cleveland", 1, staleness=1)
    for happened in (third, fourth, committed(2, third, fourth)):
        story.take(happened)
    story.take(event(events.SiteJoined.kind, "hungary"))
    fifth, sixth = folded("hungary", 0, staleness=1), folded("switzerland", 0, staleness=2)
    for happened in (fifth, sixth, committed(3, fifth, sixth)):
        story.take(happened)
    story.take(event(events.UpdateRefused.kind, "cleveland", "cleveland: update refused: the job is finishing"))
    scores = {site: {"metrics": {"auc": auc}, "num_examples": 90} for site, auc in FEDERATED.items()}
    story.take(event(events.JobEnded.kind, text="finished", state="finished", result={"scores": scores}))


def rendered(renderable: object, *, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_updates_and_staleness_are_counted_per_hospital(story):
    play(story)
    found = {name: (site.seen.updates, site.seen.mean_staleness) for name, site in story.sites.items()}
    assert found == {"cleveland": (2, 0.5), "hungary": (2, 1.5), "switzerland": (1, 2.0), "va-long-beach": (1, 0.0)}


def test_who_joined_late_left_and_came_back_is_told_with_versions(story):
    play(story)
    assert facts_of(story, BASELINES)["events"] == {
        "joined_late": {"site": "va-long-beach", "version": 1},
        "left": {"site": "hungary", "version": 1},
        "came_back": {"site": "hungary", "version": 2, "updates": 1},
    }


def test_a_version_is_told_with_who_made_it(story):
    play(story)
    texts = [text for _, text in story.sentences]
    assert "version 1 from cleveland (staleness 0) and hungary (staleness 2)" in texts
    assert "hungary is back, at version 2" in texts


def test_facts_of_a_hospital(story):
    play(story)
    assert facts_of(story, BASELINES)["hospitals"]["cleveland"] == {
        "patients": 300,
        "test_patients": 90,
        "test_patients_healthy": 45,
        "auc": {"local_only": 0.883, "pooled": 0.881, "federated": 0.878},
        "updates": 2,
        "refused": 1,
        "mean_staleness": 0.5,
    }


def test_a_hospital_that_scored_nothing_has_no_federated_auc(story):
    begin(story)
    story.take(event(events.JobEnded.kind, text="finished", state="finished", result={"scores": {}}))
    facts = facts_of(story, BASELINES)
    assert facts["hospitals"]["hungary"]["auc"]["federated"] is None
    assert any("hungary not scored" in line for line in rendered(report(facts)))


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_screen_fits_and_names_every_hospital(story, size):
    # given
    width, height = size
    begin(story)
    for site, auc in FEDERATED.items():
        story.take(scored(site, auc))
    for number in range(60):
        update = folded("va-long-beach", number, staleness=30)
        story.take(update)
        story.take(committed(number + 1, update, update))
    doing = {"cleveland": SiteInJob(state="online", activity="x" * 200)}
    story.look(JobDetail(job="heart", says="waiting for 1 more update; left: hungary", sites=doing))
    # when
    lines = rendered(screen(story, width=width, height=height), width=width)
    # then
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    for name, auc in FEDERATED.items():
        assert any(f" {name} " in line and f"{auc:.3f}" in line for line in lines), lines
    assert any("waiting for 1 more update" in line and "left" not in line for line in lines)


def test_the_screen_before_anything_happened(story):
    lines = rendered(screen(story, width=80, height=24))
    assert max(map(len, lines)) <= 80
    assert any("not yet submitted" in line for line in lines)


def test_the_report_fits_80_columns_and_hides_no_loss(story):
    # given
    play(story)
    # when
    lines = rendered(report(facts_of(story, BASELINES)))
    text = "\n".join(lines)
    # then
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(name) for line in lines) for name in HOSPITALS)
    assert "cleveland -0.005" in text
    assert "switzerland has 2 healthy among 36 test patients: its AUC says little" in text
    assert "0.662*" in text
    assert "came back at version 2; updates since then: 1" in text


def test_a_pipe_gets_one_plain_line_per_sentence():
    # given
    console = Console(file=io.StringIO(), force_terminal=True, width=20)
    tell = plain_lines(console)
    story = Story({}, versions=1, tell=tell, clock=lambda: 0.0)
    # when
    with live(story, console):
        story.say("va-long-beach joins [bold]while the others train")
    # then
    assert console.file.getvalue() == "  0.0 s  va-long-beach joins [bold]while the others train\n"


def test_the_shipped_job_is_for_these_hospitals():
    spec = demo_job()
    assert spec.task == "heart_disease"
    assert PACE_S.keys() == set(HOSPITALS)
    assert max(PACE_S.values()) == 10 * min(PACE_S.values())


def test_every_hospital_gets_its_own_patients(tmp_path):
    cohorts = hand_out(tmp_path)
    assert {name: cohort.patients for name, cohort in cohorts.items()} == {
        "cleveland": 303,
        "hungary": 294,
        "switzerland": 123,
        "va-long-beach": 200,
    }
    assert (cohorts["switzerland"].test_patients, cohorts["switzerland"].healthy) == (36, 2)
    rows = (tmp_path / "hungary" / "heart_disease.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == {"hungary"}
