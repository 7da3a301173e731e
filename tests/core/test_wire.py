"""The wire: golden bytes of every message, what a decoder accepts from another release, and what garbage does to it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.statistics import Labels, Plan, Statistics
from fedbus.errors import DecodeError

HEADERS = {"schema": 1}
UPDATE = "mercy:0123abcd:7"
TRAINING = m.JobActivity(job="heart", activity=Activity.TRAINING, version=3, step=4, steps=40, device="cuda:1")
LAYOUT = {"tensors": [["bias", [2], "float32"]]}

# Changing a line here changes the protocol: sites in the field run other releases.
GOLDEN: list[tuple[wire.Message, str, bytes]] = [
    (
        m.Join(site="mercy", session="s1", tasks=("digits",), fedbus_version="0.1.0"),
        "join",
        b'{"device":"cpu","fedbus_version":"0.1.0","session":"s1","site":"mercy","tasks":["digits"]}',
    ),
    (
        m.SiteStatus(
            site="mercy",
            session="s1",
            lease_s=30.0,
            jobs=(TRAINING,),
            said_at=1700000000.5,
        ),
        "status",
        b'{"jobs":[{"activity":"training","detail":"","device":"cuda:1","job":"heart","new_labels":-1,"step":4,"steps":40,"version":3}],'
        b'"lease_s":30.0,"said_at":1700000000.5,"session":"s1","site":"mercy"}',
    ),
    (m.Leave(site="mercy", session="s1"), "leave", b'{"reason":"stopped","session":"s1","site":"mercy"}'),
    (
        m.OfferAnswer(site="mercy", job="heart", accepted=False, reason="task not allowed"),
        "offer-answer",
        b'{"accepted":false,"job":"heart","layout":"","reason":"task not allowed","site":"mercy"}',
    ),
    (
        m.ScoreAnswer(site="mercy", job="heart", version=3, metrics={"auc": 0.5}, num_examples=9),
        "score-answer",
        b'{"asked":null,"differences":{},"failed":"","job":"heart","local":"","losses":{},"metrics":{"auc":0.5},'
        b'"not_finite":[],"num_examples":9,"site":"mercy","spreads":{},"version":3}',
    ),
    (
        m.StatisticsAnswer(
            site="mercy",
            job="heart",
            asked="0a",
            statistics=Statistics(examples=20, labels=Labels(counts={"0": 20, "1": None}, expected=(0, 1))),
        ),
        "statistics-answer",
        b'{"asked":"0a","failed":"","job":"heart","site":"mercy","statistics":{"columns":[],"copies":0,"examples":20,'
        b'"images":null,"labels":{"counts":{"0":20,"1":null},"expected":[0,1],"of_masks":false},"masks":null,'
        b'"prints":[],"problems":{}}}',
    ),
    (
        m.ResyncRequest(site="mercy", job="heart", reason="digest"),
        "resync",
        b'{"job":"heart","reason":"digest","site":"mercy"}',
    ),
    (
        m.TrainerTrouble(site="mercy", job="heart", error="killed", restarts=2),
        "trainer-trouble",
        b'{"error":"killed","fatal":false,"job":"heart","restarts":2,"site":"mercy"}',
    ),
    (m.RollCall(session="a1"), "roll-call", b'{"session":"a1"}'),
    (
        m.JobOffer(job="heart", spec={"task": "digits"}),
        "offer",
        b'{"job":"heart","spec":{"task":"digits"},"submitter":""}',
    ),
    (m.InitialParamsRequest(job="heart"), "initial-params", b'{"job":"heart","layout_only":false}'),
    (
        m.JobStarted(job="heart", session="0a", log="fedbus.models.heart.0b"),
        "job-started",
        b'{"job":"heart","log":"fedbus.models.heart.0b","session":"0a"}',
    ),
    (
        m.Receipt(job="heart", update_id=UPDATE, outcome=m.Outcome.FOLDED, staleness=300, rebase=240),
        "receipt",
        b'{"job":"heart","outcome":"folded","reason":"","rebase":240,"staleness":300,"update_id":"mercy:0123abcd:7"}',
    ),
    (m.StepBudget(job="heart", steps=20), "step-budget", b'{"job":"heart","steps":20}'),
    (
        m.ResendRequest(job="heart", update_id=UPDATE),
        "resend",
        b'{"job":"heart","update_id":"mercy:0123abcd:7"}',
    ),
    (
        m.ScoreRequest(job="heart", version=3),
        "score",
        b'{"against":-1,"intervals":false,"job":"heart","local":false,"losses":0,"model":-1,"version":3}',
    ),
    (
        m.StatisticsRequest(job="heart", id="0a", plan=Plan(salt="ab")),
        "statistics",
        b'{"id":"0a","job":"heart","plan":{"bins":10,"minimum":5,"salt":"ab"}}',
    ),
    (
        m.JobEnded(job="heart", state=m.JobState.ABORTED, reason="enough"),
        "job-ended",
        b'{"job":"heart","reason":"enough","state":"aborted"}',
    ),
    (m.JobForgotten(job="heart"), "job-forgotten", b'{"job":"heart"}'),
    (
        m.CertificateRenewed(site="alpha", certificate="PEM"),
        "certificate-renewed",
        b'{"authorities":"","certificate":"PEM","endorsement":"","site":"alpha"}',
    ),
    (m.RevocationLists(lists="PEM"), "revocation-lists", b'{"lists":"PEM"}'),
    (
        m.UpdateManifest(
            job="heart",
            update_id=UPDATE,
            kind=m.UpdateKind.DELTA,
            base_version=3,
            effort=Effort(
                num_examples=100,
                steps=40,
                seconds=1.5,
                metrics={"loss": 0.25},
                travel=4.0,
                response=1.5,
                data_wait_s=0.5,
            ),
            layout_digest="ab",
            frames=2,
            body_bytes=50,
        ),
        "update",
        b'{"base_version":3,"body_bytes":50,"effort":{"data_wait_s":0.5,"metrics":{"loss":0.25},"num_examples":100,"response":1.5,'
        b'"seconds":1.5,"steps":40,"travel":4.0},"frames":2,"job":"heart","kind":"delta","layout":null,'
        b'"layout_digest":"ab","update_id":"mercy:0123abcd:7"}',
    ),
    (
        m.VersionManifest(
            job="heart",
            version=4,
            digest="cd",
            delta=m.Part(frames=1, body_bytes=20),
            snapshot=None,
            snapshot_version=0,
            snapshot_at=1700000000.5,
            snapshot_back=7,
            receipts=(m.Receipt(job="heart", update_id=UPDATE, outcome=m.Outcome.REFUSED, reason="stale"),),
            layout=LAYOUT,
        ),
        "version",
        b'{"delta":{"body_bytes":20,"frames":1},"digest":"cd","job":"heart",'
        b'"layout":{"tensors":[["bias",[2],"float32"]]},'
        b'"receipts":[{"job":"heart","outcome":"refused","reason":"stale","rebase":null,"staleness":0,'
        b'"update_id":"mercy:0123abcd:7"}],"snapshot":null,"snapshot_at":1700000000.5,"snapshot_back":7,'
        b'"snapshot_version":0,"version":4}',
    ),
    (
        m.Event(at=1.5, job="heart", site="-", kind="job-running", text="Größe", facts={"n": [1, None, True]}),
        "event",
        '{"at":1.5,"facts":{"n":[1,null,true]},"job":"heart","kind":"job-running","site":"-","text":"Größe"}'.encode(),
    ),
]
CHUNK = m.Chunk(job="heart", transfer=UPDATE, part="update", index=0, count=2, body=b"\x00FB\xff")
BY_NAME = {name: body for _, name, body in GOLDEN}


@pytest.mark.parametrize(("message", "name", "body"), GOLDEN, ids=[name for _, name, _ in GOLDEN])
def test_a_message_is_exactly_these_bytes_and_comes_back(message: wire.Message, name: str, body: bytes) -> None:
    encoded = wire.encode(message)
    assert (encoded.type, encoded.content_type, encoded.headers) == (name, "application/json", {"schema": 1})
    assert encoded.body == body
    assert wire.decode(name, HEADERS, body) == message


def test_a_chunk_is_its_frame_with_flat_headers_and_comes_back() -> None:
    encoded = wire.encode(CHUNK)
    assert (encoded.type, encoded.content_type) == ("chunk", "application/vnd.fedbus.frame")
    assert encoded.headers == {
        "schema": 1,
        "job": "heart",
        "transfer": "mercy:0123abcd:7",
        "part": "update",
        "index": 0,
        "count": 2,
    }
    assert encoded.body is CHUNK.body
    assert wire.decode("chunk", encoded.headers, encoded.body) == CHUNK


def test_every_message_type_has_golden_bytes() -> None:
    assert {name for _, name, _ in GOLDEN} | {"chunk"} == wire.TYPES.keys()


# ------------------------------------------------------------------ another release


@pytest.mark.parametrize("name", BY_NAME)
def test_unknown_keys_are_ignored(name: str) -> None:
    newer = json.loads(BY_NAME[name]) | {"a_key_of_the_next_release": {"x": 1}}
    assert wire.decode(name, HEADERS, json.dumps(newer).encode()) == wire.decode(name, HEADERS, BY_NAME[name])


def test_a_key_with_a_default_may_be_missing() -> None:
    assert wire.decode("leave", HEADERS, b'{"site":"mercy","session":"s1"}') == m.Leave(site="mercy", session="s1")
    started = wire.decode("job-started", HEADERS, b'{"job":"heart","session":"0a"}')
    assert started == m.JobStarted(job="heart", session="0a", log="")


@pytest.mark.parametrize("schema", [None, 0, 2, "1", True, b"1"])
@pytest.mark.parametrize("name", ["join", "chunk"])
def test_another_schema_number_is_refused(name: str, schema: object) -> None:
    headers = {**wire.encode(CHUNK).headers, "schema": schema}
    with pytest.raises(DecodeError, match="expected header schema 1, got"):
        wire.decode(name, headers, b"{}")


@pytest.mark.parametrize("name", [None, "", "Join", "nonsense"])
def test_an_unknown_type_is_refused_with_the_known_ones(name: str | None) -> None:
    with pytest.raises(DecodeError, match="expected a message type of join, status"):
        wire.decode(name, HEADERS, b"{}")


# ------------------------------------------------------------------ garbage


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("join", b"", "Invalid JSON"),
        ("join", b"\xff\xfe{}", "Invalid JSON"),
        ("join", b"[]", "body"),
        ("leave", b'{"site":"mercy"}', "session: Field required"),
        ("leave", b'{"site":"Mercy Hospital","session":"s"}', "site 'Mercy Hospital' must be 1 to 40"),
        ("job-started", b'{"job":"../../etc","session":"0a"}', "job '../../etc' must be"),
        ("receipt", b'{"job":"heart","update_id":"mercy","outcome":"folded"}', "is not site:incarnation:sequence"),
        ("receipt", b'{"job":"heart","update_id":"mercy:0123abcd:1","outcome":"lost"}', "outcome"),
        ("resend", b'{"job":"heart","update_id":"../x:0:1"}', "site '../x' must be"),
        ("score", b'{"job":"heart","version":"many"}', "version"),
        ("score", b'{"job":"heart","version":1.5}', "version"),
        ("score", b'{"job":"heart","version":' + b"9" * 5000 + b"}", "Invalid JSON"),
        ("offer", b'{"job":"heart","spec":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion limit"),
        ("offer", b'{"job":"heart","spec":{"half":"\\ud800"}}', "Invalid JSON"),
    ],
)
def test_a_malformed_body_is_refused_and_says_where(name: str, body: bytes, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        wire.decode(name, HEADERS, body)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" * 400 + ".0", "1" * 250 + "e99"])
@pytest.mark.parametrize(
    "body",
    [
        '{"site":"mercy","job":"heart","version":1,"metrics":{"loss":%s},"num_examples":1}',
        '{"at":1,"job":"heart","site":"-","kind":"k","text":"t","facts":{"x":[{"y":%s}]}}',
    ],
)
def test_a_number_that_is_not_finite_is_refused_for_it_could_not_be_told_on(body: str, number: str) -> None:
    name = "score-answer" if "metrics" in body else "event"
    with pytest.raises(DecodeError):
        wire.decode(name, HEADERS, (body % number).encode())


def test_large_but_finite_numbers_pass() -> None:
    body = b'{"site":"mercy","job":"heart","version":1,"metrics":{"loss":1e300,"x":-1.5E+308},"num_examples":1}'
    message = wire.decode("score-answer", HEADERS, body)
    assert isinstance(message, m.ScoreAnswer)
    assert message.metrics == {"loss": 1e300, "x": -1.5e308}


def test_a_body_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(DecodeError, match="at most 8388608 are read"):
        wire.decode("event", HEADERS, b" " * (wire.MAX_JSON_BYTES + 1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"index": 2}, "index 2 is not below count 2"),
        ({"index": -1}, "index -1"),
        ({"index": True}, "header index must be an integer"),
        ({"count": "2"}, "header count must be an integer"),
        ({"job": None}, "header job must be a string"),
        ({"job": "a/b"}, "job 'a/b' must be"),
        ({"part": 3}, "header part must be a string"),
    ],
)
def test_a_chunk_with_a_wrong_header_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        wire.decode("chunk", {**wire.encode(CHUNK).headers, **change}, b"frame")


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.to_json({"loss": float("nan")})


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
header_values = scalars | st.binary(max_size=4) | st.lists(st.integers(), max_size=2)


@st.composite
def damaged_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A golden body with some values replaced, then perhaps cut."""
    name = draw(st.sampled_from(sorted(BY_NAME)))
    content: dict[str, Any] = json.loads(BY_NAME[name])
    for key in draw(st.sets(st.sampled_from(sorted(content)))):
        content[key] = draw(json_values)
    body = json.dumps(content).encode()
    return name, body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body


def check_total(name: str | None, headers: dict[str, Any], body: bytes) -> None:
    """A message that can be sent on, or DecodeError; nothing else."""
    try:
        message = wire.decode(name, headers, body)
    except DecodeError:
        return
    assert type(message) is wire.TYPES[name or ""]
    wire.encode(message)


@given(
    name=st.none() | st.text(max_size=8) | st.sampled_from(sorted(wire.TYPES)),
    headers=st.dictionaries(st.sampled_from(["schema", "job", "transfer", "part", "index", "count"]), header_values),
    right_schema=st.booleans(),
    body=st.binary(max_size=64),
)
def test_whatever_comes_is_a_message_or_a_decode_error(
    name: str | None, headers: dict[str, Any], right_schema: bool, body: bytes
) -> None:
    check_total(name, headers | ({"schema": 1} if right_schema else {}), body)


@given(damaged_bodies())
def test_a_damaged_message_is_a_message_or_a_decode_error(damaged: tuple[str, bytes]) -> None:
    name, body = damaged
    check_total(name, HEADERS, body)


@given(
    st.builds(
        m.Chunk,
        job=st.just("heart"),
        transfer=st.text(),
        part=st.text(),
        index=st.integers(0, 9),
        count=st.integers(10, 20),
        body=st.binary(),
    )
)
def test_any_chunk_comes_back_as_it_was(chunk: m.Chunk) -> None:
    encoded = wire.encode(chunk)
    assert wire.decode(encoded.type, encoded.headers, encoded.body) == chunk


def test_messages_are_frozen_and_have_no_further_attributes() -> None:
    for cls in wire.TYPES.values():
        assert dataclasses.is_dataclass(cls)
        assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert "__slots__" in vars(cls)


# ------------------------------------------------------------------ what a site says is bounded and means one thing

STATUS = {"site": "mercy", "session": "s", "lease_s": 9.0, "jobs": []}
MANIFEST = {
    "job": "heart",
    "update_id": UPDATE,
    "kind": "delta",
    "base_version": 0,
    "effort": {"num_examples": 1},
    "layout_digest": "1a",
    "frames": 1,
    "body_bytes": 9,
}
ACTIVITY = {"job": "heart", "activity": "training", "version": 1}


def read(name: str, body: dict[str, Any] | str) -> Any:
    return wire.decode(name, HEADERS, (body if isinstance(body, str) else json.dumps(body)).encode())


@pytest.mark.parametrize("key", ["base_version", "frames", "body_bytes"])
@pytest.mark.parametrize("value", ["10", True, None, [1], {}], ids=str)
def test_a_number_that_is_none_is_refused(key: str, value: object) -> None:
    with pytest.raises(DecodeError, match=key):
        read("update", MANIFEST | {key: value})


@pytest.mark.parametrize("key", ["num_examples", "steps", "seconds", "travel", "response"])
@pytest.mark.parametrize("value", ["10", True, None, [1], {}], ids=str)
def test_a_number_of_an_effort_that_is_none_is_refused(key: str, value: object) -> None:
    with pytest.raises(DecodeError, match=rf"effort\.{key}"):
        read("update", MANIFEST | {"effort": {"num_examples": 1, key: value}})


def test_a_manifest_of_the_release_before_is_read() -> None:
    flat = {k: v for k, v in MANIFEST.items() if k != "effort"}
    flat |= {"num_examples": 7, "steps": 3, "train_s": 1.5, "travel": 2.0, "response": 0.5, "metrics": {"loss": 0.25}}
    effort = Effort(num_examples=7, steps=3, seconds=1.5, travel=2.0, response=0.5, metrics={"loss": 0.25})
    assert read("update", flat).effort == effort
    with pytest.raises(DecodeError, match="key 'num_examples' stands there twice"):
        read("update", json.dumps(flat)[:-1] + ',"num_examples":1000000}')
    with pytest.raises(DecodeError, match="every number must be finite"):
        read("update", json.dumps(flat).replace("2.0", "NaN"))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**300])
def test_a_number_of_more_than_64_bits_is_refused(value: int) -> None:
    with pytest.raises(DecodeError, match=r"num_examples|finite|Invalid JSON"):
        read("update", MANIFEST | {"effort": {"num_examples": value}})


def test_a_message_in_which_a_key_stands_twice_is_refused() -> None:
    twice = json.dumps(MANIFEST)[:-1] + ',"frames":1000000}'
    with pytest.raises(DecodeError, match="key 'frames' stands there twice"):
        read("update", twice)
    with pytest.raises(DecodeError, match="key 'loss' stands there twice"):
        read("update", json.dumps(MANIFEST)[:-1] + ',"metrics":{"loss":1.0,"loss":2.0}}')


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("leave", {"site": "mercy", "session": "s"}, "reason"),
        ("offer-answer", {"site": "mercy", "job": "heart", "accepted": False}, "reason"),
        ("resync", {"site": "mercy", "job": "heart"}, "reason"),
        ("trainer-trouble", {"site": "mercy", "job": "heart", "restarts": 1}, "error"),
        ("join", {"site": "mercy", "session": "s", "tasks": [], "fedbus_version": "1"}, "device"),
    ],
)
def test_a_text_for_people_is_cut_and_holds_nothing_that_moves_a_terminal(
    name: str, body: dict[str, Any], text: str
) -> None:
    said = getattr(read(name, body | {text: "\x1b[2J\u202eout of\nmemory" + "x" * 100_000}), text)
    assert said.startswith("�[2J�out of memoryxx")
    assert len(said) == 500


def test_of_a_status_that_names_thousands_of_jobs_the_first_are_read() -> None:
    jobs = [ACTIVITY | {"job": f"j{n}", "detail": "x" * 1000} for n in range(3000)]
    status = read("status", STATUS | {"jobs": jobs})
    assert [activity.job for activity in status.jobs] == [f"j{n}" for n in range(64)]
    assert len(status.jobs[0].detail) == 500


def test_of_a_score_with_too_many_metrics_or_names_too_long_the_rest_is_read() -> None:
    score = {"site": "mercy", "job": "heart", "version": 1, "num_examples": 9}
    metrics = {"x" * 65: 1.0, "auc\n": 1.0} | {f"m{n}": 1.0 for n in range(1000)}
    assert list(read("score-answer", score | {"metrics": metrics}).metrics) == [f"m{n}" for n in range(256)]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("leave", {"site": "mercy", "session": "s" * 65}),
        ("leave", {"site": "mercy", "session": "s\n"}),
        ("leave", {"site": "mercy\n", "session": "s"}),
        ("status", STATUS | {"jobs": [ACTIVITY | {"job": "heart\n"}]}),
        ("status", STATUS | {"jobs": [ACTIVITY | {"job": "../../etc"}]}),
        ("update", MANIFEST | {"layout_digest": "1" * 65}),
    ],
    ids=str,
)
def test_a_name_that_none_of_ours_has_is_refused(name: str, body: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="must be"):
        read(name, body)


@pytest.mark.parametrize("text", [f"{UPDATE}\n", "mercy\n:0123abcd:7", "mercy:0123abcd\n:7", "mercy:0123ABCD:7"])
def test_an_update_id_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not site|must be|malformed"):
        m.UpdateId.parse(text)
