"""Answers as any AMQP client gets them, and as `-o json` prints them: the same keys as ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedbus.core.protocol import answers as a
from fedbus.core.protocol import wire
from fedbus.errors import DecodeError, Problem

LINE = {
    "ended_at": None,
    "job": "heart-1",
    "name": "heart",
    "rule": None,
    "says": "waiting for 1 more update",
    "started_at": 2.5,
    "state": "running",
    "submitted_at": 1.0,
    "submitted_by": "ana",
    "task": "digits",
    "updates": 9,
    "version": 4,
}
NUMBERS = {"data_wait": 0.01, "mean_staleness": 0.5, "refused": 1, "updates": 8}
RUNNING = {
    **LINE,
    "declined": {"ucsf": "task 'digits' is not allowed here"},
    "incidents": [{"at": 3.0, "kind": "site-lost", "text": "va is lost"}],
    "means": {"auc": 0.75},
    "not_finite": {"va": {"metrics": ["loss"], "version": 3}},
    "receiving": [{"age_s": 0.5, "body_bytes": 9, "chunks": 1, "count": 0, "site": "va", "update_id": "va:0123abcd:1"}],
    "refusals": [{"reason": "too many", "updates": 1}],
    "result": None,
    "sites": {"va": {**NUMBERS, "activity": "training", "state": "online", "version": None}},
    "spec": {"name": "heart", "stop": {"versions": 9}},
}
ENDED = {
    **LINE,
    "incidents": [],
    "refusals": [],
    "result": {"reason": "versions reached", "sites": {"va": NUMBERS}},
    "sites": {"va": NUMBERS},
    "spec": {"name": "heart"},
}
DOING = {"activity": "training", "detail": "", "device": "cuda:1", "step": 4, "steps": 40, "version": 3}
SITE = {
    "clock_ahead_s": None,
    "device": "cpu",
    "fedbus_version": "0.1.0",
    "heard_s": 1.0,
    "jobs": {"heart-1": DOING},
    "reason": "",
    "since_s": 20.0,
    "site": "va",
    "state": "online",
    "tasks": ["digits"],
}
VERSION = {
    "at": 12.5,
    "contributors": ["va"],
    "means": {"auc": 0.5},
    "scores": {"va": {"auc": 0.5}},
    "seconds": 2.5,
    "updates": 1,
    "version": 1,
}
ON_THE_WIRE: list[tuple[type[Any], dict[str, Any]]] = [
    (a.Accepted, {"accepted": {"job": "heart-1"}}),
    (a.Accepted, {"accepted": {"job": "heart-1", "notes": ["site uscf is not enrolled"]}}),
    (a.Aborted, {"aborted": {"job": "heart-1"}}),
    (a.Forgotten, {"forgotten": {"disk_bytes": 7, "job": "heart-1"}}),
    (a.Rejected, {"rejected": {"errors": [{"message": "no such job", "path": "job"}]}}),
    (a.ParamsOffer, {"params": {"of": "f00d", "part_bytes": 4, "size_bytes": 9, "version": 3}}),
    (a.Jobs, {"jobs": [LINE]}),
    (a.Sites, {"sites": [SITE]}),
    (a.Ended, {"ended": [{"disk_bytes": 7, "ended_at": 3.0, "job": "heart-1", "state": "failed"}]}),
    (a.History, {"history": [VERSION], "more": True}),
    (a.JobDetail, {"job": RUNNING}),
    (a.JobDetail, {"job": ENDED}),
]


@pytest.mark.parametrize(("kind", "data"), ON_THE_WIRE, ids=lambda value: getattr(value, "__name__", ""))
def test_an_answer_is_read_and_written_as_it_stands_on_the_wire(kind: type[Any], data: dict[str, Any]) -> None:
    answer = a.from_json(kind, data)
    assert isinstance(answer, kind)
    assert wire.to_json(a.to_json(answer)) == wire.to_json(data)
    assert a.from_json(kind, json.loads(wire.to_json(a.to_json(answer)))) == answer


@pytest.mark.parametrize(("kind", "data"), ON_THE_WIRE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_key_of_a_later_release_changes_nothing(kind: type[Any], data: dict[str, Any]) -> None:
    assert a.from_json(kind, _with_more(data)) == a.from_json(kind, data)


def test_what_an_earlier_release_does_not_say_has_a_default() -> None:
    line = a.from_json(a.JobLine, {"job": "heart-1", "state": "running"})
    assert (line.rule, line.says, line.version, line.ended_at) == (None, "", None, None)
    site = a.from_json(a.SiteLine, {"site": "va", "jobs": {"heart-1": {"activity": "training"}}})
    assert (site.clock_ahead_s, site.jobs["heart-1"].device) == (None, "")


@pytest.mark.parametrize("data", [{"job": None}, {"job": {"job": 7}}, {}, {"jobs": []}])
def test_what_cannot_be_read_is_an_error_of_ours(data: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="an answer of another release, JobDetail was expected"):
        a.from_json(a.JobDetail, data)


def test_a_rejection_names_where_and_what() -> None:
    assert a.rejected("job", "no such job").errors == (Problem(path="job", message="no such job"),)


def _with_more(data: Any) -> Any:
    """The same with a key more in every object that has fields; tables by name, such as metrics, stay as they are."""
    if isinstance(data, list):
        return [_with_more(value) for value in data]
    if not isinstance(data, dict):
        return data
    more = {key: value if _is_table(key, value) else _with_more(value) for key, value in data.items()}
    return more | {"of_a_later_release": {"x": [1]}}


def _is_table(key: str, value: Any) -> bool:
    by_name = {"means", "scores", "declined", "sites", "not_finite", "jobs", "spec", "result"}
    return key in by_name and isinstance(value, dict)
