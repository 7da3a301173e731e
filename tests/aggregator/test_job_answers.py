"""Answers to queries and the result that is kept: plain JSON, the same keys whether a job runs or has ended."""

from __future__ import annotations

import json
import time

from fedbus.aggregator.desk import views
from fedbus.aggregator.job.result import result_of, site_numbers
from fedbus.core.job.membership import Membership
from fedbus.core.job.training import TrainingJob
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.answers import as_json, to_json
from fedbus.core.protocol.effort import Effort
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Arrival
from fedbus.core.spec.training import TrainingSpec
from fedbus.store.rows import JobRow

SPEC = TrainingSpec.parse(
    {
        "name": "heart",
        "task": "digits",
        "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
        "strategy": {"kind": "buffered", "buffer": 9},
        "stop": {"versions": 9},
    }
)


def ended(result: dict[str, object] | None) -> JobRow:
    return JobRow(
        job="heart-1",
        spec=SPEC.to_dict(),
        state="aborted",
        reason="aborted by ana",
        layout=None,
        submitted_by="ana",
        submitted_at=1.0,
        started_at=2.0,
        ended_at=3.0,
        result=result,
    )


def update(sequence: int, site: str) -> m.UpdateId:
    return m.UpdateId(site=site, incarnation="0123abcd", sequence=sequence)


def trained() -> Aggregation:
    """Two updates folded and one refused."""
    aggregation = Aggregation(SPEC, now=0.0)
    for site in ("ucsf", "mercy"):
        arrival = Arrival(update_id=update(1, site), base_version=0, effort=Effort(num_examples=10), norm=1.0)
        aggregation.receive(arrival, now=1.0)
    aggregation.refuse(update(2, "mercy"), reason="body: truncated")
    return aggregation


def test_a_job_that_ended_is_shown_from_its_row() -> None:
    line = views.job_line(ended({"version": 7, "updates": 20}), None, Membership())
    assert (line.job, line.name, line.task, line.state) == ("heart-1", "heart", "digits", "aborted")
    assert (line.version, line.updates, line.says) == (7, 20, "aborted by ana")


def test_a_job_that_ended_without_a_result_is_shown_too() -> None:
    detail = views.job_detail(ended(None), None, Membership(), views.FromTheLedger())
    assert (detail.version, detail.updates, detail.result, detail.sites) == (None, None, None, {})
    assert detail.spec["task"] == "digits"
    json.dumps(to_json(detail), allow_nan=False)


def test_a_site_is_shown_with_what_it_does_and_how_long_ago_it_was_heard() -> None:
    membership, now = Membership(), time.monotonic()
    membership.joined(
        m.Join(site="mercy", session="s", tasks=("digits",), fedbus_version="0.1.0", device="cuda"), now=now - 20
    )
    activity = m.JobActivity(job="heart-1", activity=Activity.TRAINING, version=3, step=4, steps=40, device="cuda:1")
    membership.status(m.SiteStatus(site="mercy", session="s", lease_s=30.0, jobs=(activity,)), now=now - 5)
    (view,) = membership.views()
    line = views.site_line(view)
    assert (line.site, line.state, line.device, line.tasks) == ("mercy", "online", "cuda", ("digits",))
    assert 20 <= line.since_s < 25
    assert 5 <= line.heard_s < 10
    doing = {"activity": "training", "version": 3, "step": 4, "steps": 40, "detail": "", "device": "cuda:1"}
    plain = as_json(line)
    assert plain["jobs"] == {"heart-1": doing}
    json.dumps(plain, allow_nan=False)


def test_numbers_of_each_site_are_in_order_of_names() -> None:
    assert list(site_numbers(trained()).items()) == [
        ("mercy", {"updates": 1, "refused": 1, "mean_staleness": 0.0, "data_wait": 0.0, "num_examples": 10}),
        ("ucsf", {"updates": 1, "refused": 0, "mean_staleness": 0.0, "data_wait": 0.0, "num_examples": 10}),
    ]


def test_the_result_holds_final_scores_and_what_each_site_gave() -> None:
    aggregation, life = trained(), TrainingJob(SPEC)
    life.offered(now=0.0)
    for site in ("mercy", "ucsf"):
        life.accepted(site)
    life.set_active({"mercy", "ucsf"})
    life.started(now=1.0)
    life.finishing("versions reached", now=2.0, score=[0])
    life.scored(version=0, site="mercy", metrics={"auc": 0.75}, num_examples=9)
    result = result_of(life, aggregation, exported="final.safetensors")
    assert result["scores"] == {"mercy": {"metrics": {"auc": 0.75}, "num_examples": 9}}
    assert (result["version"], result["updates"], result["reason"]) == (0, 2, "versions reached")
    assert result["exported"] == "final.safetensors"
    assert result["sites"] == site_numbers(aggregation)
    json.dumps(result, allow_nan=False)
