"""What submitters ask is answered, and what goes wrong in one request or one job stops no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbus.aggregator.desk.fetches import Fetches, Part
from fedbus.aggregator.desk.front_desk import ASK_BURST, FrontDesk
from fedbus.aggregator.tools import Tools
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.core.job.membership import Membership
from fedbus.core.protocol.answers import to_json
from fedbus.core.protocol.events import Happened
from fedbus.core.spec.training import TrainingSpec
from fedbus.store.ledger import Ledger
from fedbus.store.rows import JobRow

SPEC = {
    "name": "heart",
    "task": "t",
    "local": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    "stop": {"versions": 9},
}


class Announcer:
    async def event(self, job: str, happened: Happened) -> None:
        pass


class Broken:
    """A runner of which nothing can be asked."""

    aborted = ""

    @property
    def life(self) -> Any:
        raise RuntimeError("injected")

    def abort(self, reason: str) -> None:
        self.aborted = reason


class Delivery:
    def __init__(
        self, key: str, body: Any, *, user: str | None = "ana", message_id: str = "m1", **properties: Any
    ) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.envelope = Envelope(
            exchange="fedbus.jobs",
            routing_key=key,
            type="",
            body=raw,
            message_id=message_id,
            user_id=user,
            **properties,
        )


class Desk:
    """A front desk over a real ledger, with one job whose runner is broken."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.broken = Broken()
        self.start_error: Exception | None = None
        self.ledger = Ledger(folder / "ledger.sqlite3")
        for job in ("lungs", "brain"):
            self.ledger.add_job(job, SPEC, message_id=job, submitted_by="ana", state="running", at=1.0)
        tools = Tools(
            session="s",
            ledger=self.ledger,
            store=at_once,  # type: ignore[arg-type]
            compute=at_once,  # type: ignore[arg-type]
            saving=at_once,  # type: ignore[arg-type]
            post=Post(),
            announcer=Announcer(),  # type: ignore[arg-type]
            membership=Membership(),
            score_timeout_s=5.0,
            checkpoint_interval_s=0.0,
            enrolled=is_enrolled,
        )
        self.desk = FrontDesk(
            tools=tools,
            runners={"lungs": self.broken},  # type: ignore[dict-item]
            start_job=self.start,
            forgetting=None,  # type: ignore[arg-type]
            publisher=None,  # type: ignore[arg-type]
            fetches=Fetches(folder, worker=at_once, publisher=None),  # type: ignore[arg-type]
            clock=lambda: self.now,
        )

    def start(self, row: JobRow) -> None:
        if self.start_error is not None:
            raise self.start_error

    async def asks(self, key: str, body: Any, **properties: Any) -> Any:
        answer = await self.desk.answer(Delivery(key, body, **properties))  # type: ignore[arg-type]
        assert not isinstance(answer, Part)
        return to_json(answer)


async def is_enrolled(site: str) -> bool:
    return site in {"mercy", "ucsf"}


async def at_once(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    with desk.ledger:
        yield desk


async def test_a_job_that_cannot_be_shown_does_not_hide_the_others(desk: Desk) -> None:
    lines = (await desk.asks("query", {"what": "jobs"}))["jobs"]
    assert {line["job"]: line["says"] for line in lines} == {
        "lungs": "cannot be shown: RuntimeError: injected",
        "brain": "",
    }


async def test_a_request_in_which_something_goes_wrong_is_answered_and_so_is_the_next(desk: Desk) -> None:
    desk.start_error = RuntimeError("injected")
    (error,) = (await desk.asks("submit.ana", SPEC))["rejected"]["errors"]
    assert error["message"] == "the aggregator could not do it: RuntimeError: injected; its log says more"
    assert "sites" in await desk.asks("query", {"what": "sites"})


async def test_a_submit_is_told_of_sites_that_nobody_enrolled(desk: Desk) -> None:
    desk.ledger.add_participant("brain", "ucsf", at=1.0)
    accepted = (await desk.asks("submit.ana", SPEC | {"sites": ["mercy", "uscf"]}))["accepted"]
    assert accepted["notes"] == ["site uscf is not enrolled at the broker: nearest 'ucsf'"]


async def test_a_login_that_asks_without_end_is_told_and_others_are_answered(desk: Desk) -> None:
    answers = [await desk.asks("query", {"what": "sites"}) for _ in range(int(ASK_BURST) + 1)]
    assert "sites" in answers[-2]
    assert "login ana asks too much at once" in answers[-1]["rejected"]["errors"][0]["message"]
    assert "sites" in await desk.asks("query", {"what": "sites"}, user="eve")
    desk.now += 1.0
    assert "sites" in await desk.asks("query", {"what": "sites"})


async def test_the_reason_of_an_abort_is_cut_and_can_be_shown(desk: Desk) -> None:
    await desk.asks("abort.lungs", {"reason": "\x1b[2J" + "x" * 10_000})
    assert desk.broken.aborted.startswith("aborted by ana: �[2Jxx")
    assert len(desk.broken.aborted) < 600


async def test_a_submit_names_its_job_and_is_one_job_however_often_it_comes(desk: Desk) -> None:
    for message_id in ("m1", "m1", ""):
        submit = {"message_id": message_id, "headers": {"job": f"mine{message_id}"}}
        for _ in range(2):
            answer = await desk.asks("submit.ana", SPEC, **submit)
            assert answer == {"accepted": {"job": f"mine{message_id}"}}
    assert [row.job for row in desk.ledger.jobs()] == ["lungs", "brain", "minem1", "mine"]


async def test_a_submit_without_an_id_gets_one(desk: Desk) -> None:
    (job,) = (await desk.asks("submit.ana", SPEC))["accepted"].values()
    assert job.startswith("heart-")


async def test_a_submit_that_comes_again_after_an_upgrade_is_the_same_job(desk: Desk) -> None:
    # given a job as a release that knew fewer keys has kept it
    older = {key: value for key, value in TrainingSpec.parse(SPEC).to_dict().items() if key not in ("kind", "travel")}
    desk.ledger.add_job("mine", older, message_id="m1", submitted_by="ana", state="running", at=1.0)
    answer = await desk.asks("submit.ana", SPEC, message_id="m1", headers={"job": "mine"})
    assert answer == {"accepted": {"job": "mine"}}


@pytest.mark.parametrize(
    ("message_id", "says"),
    [("m2", "there is a job mine already"), ("m1", "'m1' was used before, for mine with another login or id")],
)
async def test_nobody_takes_the_id_or_the_message_id_of_a_job_that_is_there(
    desk: Desk, message_id: str, says: str
) -> None:
    await desk.asks("submit.ana", SPEC, headers={"job": "mine"}, message_id="m1")
    answer = await desk.asks("submit.eve", SPEC, user="eve", headers={"job": "mine"}, message_id=message_id)
    assert answer["rejected"]["errors"][0]["message"].startswith(says)
    row = desk.ledger.job("mine")
    assert row is not None
    assert row.submitted_by == "ana"


@pytest.mark.parametrize("job", ["Heart", "a.b", "", "x" * 41, "heart\n"])
async def test_an_id_that_is_no_name_is_refused(desk: Desk, job: str) -> None:
    (error,) = (await desk.asks("submit.ana", SPEC, headers={"job": job}))["rejected"]["errors"]
    assert error["path"] == "header job"
    assert "must be 1 to 40 of a-z, 0-9 and '-'" in error["message"]
    assert len(desk.ledger.jobs()) == 2


@pytest.mark.parametrize(
    ("key", "body", "properties", "path"),
    [
        ("query\n", {}, {}, "routing key"),
        ("query", {}, {"copied": True}, "headers"),
        ("query", {}, {"user": None}, "user_id"),
        ("submit.ana", json.dumps(SPEC)[:-1].encode() + b',"name":"other"}', {}, "name"),
        ("submit.ana", SPEC | {"name": "heart\n"}, {}, "name"),
        ("submit.ana", SPEC | {"task": "t\n"}, {}, "task"),
        ("submit.ana", SPEC | {"sites": ["mercy\n"]}, {}, "sites.0"),
        ("submit.ana", SPEC | {"stop": {"target": {"metric": "auc\n", "at_least": 0.5}}}, {}, "stop.target.metric"),
        ("submit.ana", SPEC | {"seed": "7"}, {}, "seed"),
        ("abort.lungs\n", {}, {}, "job"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_not_quite_a_request_is_rejected(
    desk: Desk, key: str, body: Any, properties: dict[str, Any], path: str
) -> None:
    answer = await desk.asks(key, body, **properties)
    assert [error["path"] for error in answer["rejected"]["errors"]] == [path]
    assert desk.broken.aborted == ""
