"""What submitters ask: any AMQP client may send this JSON, so it stays as it is; what cannot be read is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedbus.console.client import address
from fedbus.core.protocol import requests as q
from fedbus.errors import JobSpecError

ON_THE_WIRE = [
    (q.Abort(job="heart", reason="wrong data"), "abort.heart", "abort", b'{"reason": "wrong data"}'),
    (q.Abort(job="heart"), "abort.heart", "abort", b"{}"),
    (q.Forget(job="heart"), "abort.heart", "forget", b'{"forget": true}'),
    (q.JobsQuery(), "query", "query", b'{"what": "jobs"}'),
    (q.SitesQuery(), "query", "query", b'{"what": "sites"}'),
    (q.EndedQuery(), "query", "query", b'{"what": "ended"}'),
    (q.JobQuery(job="heart"), "query", "query", b'{"what": "job", "job": "heart"}'),
    (
        q.ParamsQuery(job="heart", version="best"),
        "query",
        "query",
        b'{"what": "params", "job": "heart", "version": "best"}',
    ),
    (q.HistoryQuery(job="heart"), "query", "query", b'{"what": "history", "job": "heart"}'),
    (q.HistoryQuery(job="heart", after=7), "query", "query", b'{"what": "history", "job": "heart", "after": 7}'),
    (q.PartQuery(of="f00d", offset=9), "query", "query", b'{"what": "part", "of": "f00d", "offset": 9}'),
]


@pytest.mark.parametrize(("request_", "key", "kind", "body"), ON_THE_WIRE, ids=lambda value: str(value)[:40])
def test_a_request_goes_out_as_it_always_did_and_comes_in_as_it_went_out(
    request_: q.Request, key: str, kind: str, body: bytes
) -> None:
    assert address(request_) == (key, kind)
    assert json.dumps(q.body_of(request_)).encode() == body
    read = json.loads(body)
    assert (q.query_of(read) if key == "query" else q.abort_of("heart", read)) == request_


def test_what_is_left_out_has_a_meaning_and_what_is_not_known_is_ignored() -> None:
    assert q.query_of({}) == q.JobsQuery()
    assert q.query_of({"what": "params", "job": "heart"}) == q.ParamsQuery(job="heart", version="last")
    assert q.query_of({"what": "sites", "colour": "blue"}) == q.SitesQuery()
    assert q.abort_of("heart", {"forget": "yes"}) == q.Abort(job="heart")


@pytest.mark.parametrize(
    ("body", "path", "says"),
    [
        ({"what": "weather"}, "weather", "no query 'weather'"),
        ({"what": ["jobs"]}, "['jobs']", "no query ['jobs']"),
        ({"what": "job"}, "job", "expected a text, got None"),
        ({"what": "history", "job": 7}, "job", "expected a text, got 7"),
        *(({"what": "history", "job": "h", "after": n}, "after", "a version") for n in (True, "3", -2, 2**70)),
        ({"what": "params", "job": "h", "version": True}, "version", "best, last or the number of one"),
        ({"what": "part", "of": "f", "offset": "0"}, "offset", "expected the number of a byte, got '0'"),
        ({"what": "part", "of": None, "offset": 0}, "of", "expected a text, got None"),
    ],
    ids=repr,
)
def test_what_cannot_be_read_is_said_with_its_key(body: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(JobSpecError) as caught:
        q.query_of(body)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert says in problem.message
