"""The audit logs of a whole federation in one scripted run: what they tell, and who keeps them to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pika

from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.bus.url import BrokerUrl
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.local.federation import wait_until
from fedbus.store.audit import FOLDER, files_of, lines_of
from fedbus.store.audit_check import verify
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import Head, Line
from tests.acts import lasting

from .conftest import QUICK_STATUS, SOON, House

OTHER_TESTS = {
    Kind.LINES_LOST,  # tests/site/test_door_audit.py
    Kind.WITHHELD,
    Kind.LINES_DELETED,  # tests/store/test_audit.py
    Kind.CERTIFICATE_CHANGED,  # test_no_secret_in_logs.py
    Kind.SITE_REVOKED,  # tests/aggregator/test_audit_lines.py
    Kind.KIT_CHANGED,
}
OF_ANOTHER_LOG = f"1:{'0' * 64}"
LOGINS = ("aggregator", "submitter", "cleveland", "hungary", "site-a")


def lines(folder: Path, kind: str | None = None) -> list[Line]:
    found = [line for file in files_of(folder / FOLDER) for _, line in lines_of(file) if isinstance(line, Line)]
    return [line for line in found if kind in (None, line.kind)]


def facts(folder: Path, kind: str) -> list[Mapping[str, Any]]:
    return [line.facts for line in lines(folder, kind)]


def test_every_kind_appears_in_a_run_whose_logs_hold_no_password(house: House, vhost: Any) -> None:
    aggregator = house.start_aggregator(log_level="debug")
    aggregator.wait_for("aggregator-ready")
    state = house.running.state_dir("cleveland")
    own = house.running.state_dir("aggregator")
    job = a_job_to_its_end(house)
    sent = a_job_that_is_stopped_by_force(house)
    what_breaks_the_protocol(house, sent)
    kept = house.fedbus("audit", "heads", "-o", "json").json
    kinds = {line.kind for name in ("cleveland", "hungary", "site-a") for line in lines(house.running.state_dir(name))}
    house.stop_all()
    kinds |= {line.kind for line in lines(own)}

    assert kinds == set(Kind) - OTHER_TESTS
    # what leaves has its line at the site, and each version one at the aggregator
    updates = facts(state, "update-leaves")
    assert {str(fact.update_id) for fact in house.folded(job)} <= {f["update"] for f in updates if f["job"] == job}
    assert all(f["submitter"] == "submitter" and f["task_version"].startswith("fedbus ") for f in updates)
    assert len([f for f in facts(own, "version-leaves") if f["job"] == job]) >= len(house.versions(job))
    # the heads of its log came with its updates, and hold it
    heads = [Head.parse(f["audit"]) for f in facts(own, "update-folded") if f["site"] == "cleveland"]
    assert verify(own / FOLDER).fault is None
    assert verify(state / FOLDER, heads).heads == len(heads) > 2
    # so says the command, of the head that the aggregator names and of one of another log
    (head,) = [one["head"] for one in kept if one["job"] == job]
    for given, code, words in ((head, 0, "1 of 1 heads"), (OF_ANOTHER_LOG, 1, "line 1: rewritten: sequence 1 was")):
        said = house.fedbus("audit", "verify", "--state-dir", str(state), "--head", given)
        assert (said.code, words in said.out) == (code, True), said.out
    assert_no_password(house, vhost)


def a_job_to_its_end(house: House) -> str:
    """Offered, trained and ended at one site, declined at another, fetched, and forgotten after one like it."""
    house.start_site("cleveland", log_level="debug", **QUICK_STATUS)
    house.start_site("hungary", tasks="digits", log_level="debug", **QUICK_STATUS).wait_for("site-ready")
    job = house.submit()
    house.ended(job)
    assert house.fedbus("get", job, "--to", str(house.folder / "model.safetensors")).code == 0
    stopped = house.submit(task_config={"numel": 1, "tensors": 9})
    house.aggregator.wait_for("trainer-trouble", job=stopped)
    assert house.fedbus("abort", stopped).code == 0
    house.ended(stopped, state="aborted")

    async def forgotten(client: Any) -> bool:
        return stopped in [one.job for one in await client.ended()]

    wait_until(lambda: house.ask(forgotten), within=SOON, what="the end of the aborted job")
    assert house.fedbus("rm", stopped).code == 0
    return job


def a_job_that_is_stopped_by_force(house: House) -> str:
    """One site is killed in the middle of a line and comes back; the other one is lost, then stopped for good."""
    hungary, cleveland = (daemon for daemon in reversed(house.running.daemons[1:]))
    house.kill(hungary)
    house.aggregator.wait_for("site-lost", site="hungary")
    job = house.submit(stop={"versions": 100_000}, local={"steps": 40, "batch_size": 32, "learning_rate": 0.05})
    house.aggregator.wait_for("update-folded", job=job)
    house.kill(cleveland)
    files = files_of(house.running.state_dir("cleveland") / FOLDER)
    with files[-1].open("ab") as file:
        file.write(b'{"sequence":99,"at"')
    data = house.folder / "data" / "cleveland"
    cleveland = house.start_site("cleveland", data=data, log_level="debug", **QUICK_STATUS)
    cleveland.wait_for("update-published", job=job)
    house.terminate(cleveland)
    house.aggregator.wait_for("site-left", site="cleveland")
    state = house.running.state_dir("hungary")
    house.start_site("hungary", data=data, tasks="digits", **QUICK_STATUS).wait_for("site-ready")
    assert house.fedbus("site", "stop", "--now", "--state-dir", str(state)).code == 0
    assert house.fedbus("site", "forget", "--yes", "--state-dir", str(state)).code == 0
    return job


def what_breaks_the_protocol(house: House, job: str) -> None:
    """Messages that are none, an update that does not count with the head of another log, a wrong password."""
    with pika.BlockingConnection(lasting(house.running.url("cleveland"))) as connection:
        said = pika.BasicProperties(user_id="cleveland", type="join")
        connection.channel().basic_publish(t.SITES, "cleveland.join", b"{}", said)
    house.aggregator.wait_for("dead-letter", sender="cleveland")
    asyncio.run(send_what_does_not_count(house.running.url("cleveland"), job))
    house.aggregator.wait_for("update-refused", job=job, site="cleveland")
    house.aggregator.wait_for("site-audit-differs", site="cleveland")
    data = house.folder / "data" / "cleveland"
    cleveland = house.start_site("cleveland", data=data, **QUICK_STATUS)
    cleveland.wait_for("site-ready")
    with pika.BlockingConnection(lasting(house.running.url("aggregator"))) as connection:
        said = pika.BasicProperties(user_id="aggregator", type="offer")
        connection.channel().basic_publish(t.CONTROL, t.control_key_site("cleveland"), b"{}", said)
    cleveland.wait_for("control-message")
    url = house.running.url("site-a")
    wrong = url.replace(BrokerUrl.parse(url).password, "not-the-password")
    refused = house.start_site("site-a", data=data, broker_url=wrong)
    refused.wait_for("broker refused")
    house.terminate(refused)


async def send_what_does_not_count(url: str, job: str) -> None:
    manifest = m.UpdateManifest(
        job=job,
        update_id="cleveland:0123abcd:1",
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1, steps=1, seconds=1.0),
        layout_digest="00",
        frames=1,
        body_bytes=1,
        audit=OF_ANOTHER_LOG,
    )
    chunk = m.Chunk(job=job, transfer=manifest.update_id, part="update", index=0, count=1, body=b"0")
    async with Session(url, name="test") as session:
        for message in (chunk, manifest):
            await Publisher(session).publish(Post().from_trainer(message, site="cleveland"))


def assert_no_password(house: House, vhost: Any) -> None:
    passwords = {BrokerUrl.parse(vhost.url(login)).password.encode() for login in LOGINS}
    logs = [*house.folder.rglob("*.jsonl"), *(daemon.log for daemon in house.running.daemons)]
    logs += [path for path in vhost.node.base.rglob("*.log*") if path.is_file()]
    assert [path for path in logs if any(word in path.read_bytes() for word in passwords)] == []
