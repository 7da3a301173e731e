"""A hospital's policy in force at a real site: what it refuses is not done, and a wrong one shuts the site."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pika
import pytest

from fedbus.bus import topology as t
from fedbus.core.spec.site_policy import DAYS
from fedbus.local.federation import Daemon, wait_until
from tests.acts import lasting

from .conftest import QUICK_STATUS, SOON, House

ALWAYS = {"join", "status", "leave"}
GOOD: dict[str, Any] = {
    "format": 1,
    "jobs": {
        "submitters": [{"name": "submitter", "fingerprint": "any"}],
        "kinds": ["training"],
        "min_contributors": 1,
        "min_batch_size": 8,
        "min_examples": 1,
        "max_steps_per_update": 10,
        "max_steps_per_day": 100000,
    },
    "privacy": {"filters": []},
    "hours": {"zone": "Europe/Berlin", "open": ["mon-sun 00:00-24:00"]},
    "out": {
        "bytes_per_day": 100000000,
        "metrics": ["acc*"],
        "intervals": True,
        "statistics": False,
        "prints": False,
        "local_models": False,
    },
    "tasks": {
        "synthetic": {
            "data": "any",
            "params": {
                "task_config.numel": {"min": 1, "max": 1000},
                "local.steps": {"min": 1, "max": 10},
                "local.batch_size": [16, 32],
                "local.learning_rate": "any",
                "local.evaluate": "any",
            },
        }
    },
}
Path_ = tuple[str, ...]


def toml(value: Any) -> str:
    """A value of these policies as inline TOML."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case date():
            return str(value)
        case _:
            return json.dumps(value)


def as_toml(policy: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in policy.items())


def keys(value: Any, above: Path_ = ()) -> Iterator[Path_]:
    """The path of every key, at any depth."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*above, key)
            yield from keys(item, (*above, key))


def changed(path: Path_, change: Callable[[dict[str, Any], str], object]) -> str:
    policy = copy.deepcopy(GOOD)
    section = policy
    for key in path[:-1]:
        section = section[key]
    change(section, path[-1])
    return as_toml(policy)


def deleted(section: dict[str, Any], key: str) -> None:
    del section[key]


def of_a_wrong_type(section: dict[str, Any], key: str) -> None:
    section[key] = date(2026, 11, 30)  # what no key takes


def misspelt(section: dict[str, Any], key: str) -> None:
    section[f"{key[:-1]}_{key[-1]}"] = section.pop(key)


def mutations() -> Iterator[tuple[str, str]]:
    """What was done to a policy, and its text."""
    ways: tuple[Callable[[dict[str, Any], str], object], ...] = (deleted, misspelt, of_a_wrong_type)
    for number, path in enumerate(keys(GOOD)):
        way = ways[number % 3]  # a test of the parser has every way for every key
        yield f"{'.'.join(path)} {way.__name__}", changed(path, way)
    yield "cut in the middle", as_toml(GOOD)[:200]
    yield "empty", ""


@contextmanager
def tap(url: str, site: str) -> Iterator[Callable[[], list[tuple[str, bytes]]]]:
    """Everything that this login publishes from now on: types and bodies."""
    connection = pika.BlockingConnection(lasting(url))
    channel = connection.channel()
    queue = str(channel.queue_declare("fedbus.tap", durable=True, arguments={"x-queue-type": "classic"}).method.queue)
    for exchange in (t.SITES, t.UPDATES, t.CONTROL, t.JOBS, t.MODELS, t.EVENTS):
        channel.queue_bind(queue, exchange, "#")

    def said() -> list[tuple[str, bytes]]:
        found = []
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            _, properties, body = got
            if properties.user_id == site:
                found.append((str(properties.type), body))
        return found

    try:
        yield said
    finally:
        connection.close()


def read_anew(site: Daemon) -> dict[str, Any]:
    """Let the site look at its policy now; what it says of it."""
    looks = lines(site, "policy-read", "policy-unread")
    os.kill(site.pid, signal.SIGHUP)
    return one_more(site, looks, "policy-read", "policy-unread")


def lines(site: Daemon, *names: str) -> list[dict[str, Any]]:
    return [event for event in site.events() if event["event"] in names]


def one_more(site: Daemon, before: list[dict[str, Any]], *names: str) -> dict[str, Any]:
    """The newest line of these names, once there is one more than before."""

    def newest() -> dict[str, Any] | None:
        found = lines(site, *names)
        return found[-1] if len(found) > len(before) else None

    return wait_until(newest, within=SOON, what=f"one more of {names}", or_else=site.last_words)


@pytest.fixture
def policy(house: House, tmp_path: Path) -> Path:
    """The policy of a site that runs, and works for nobody yet."""
    path = tmp_path / "policy.toml"
    path.write_text(as_toml(GOOD))
    house.start_aggregator()
    house.aggregator.wait_for("aggregator-ready")
    house.start_site("cleveland", policy=path, **QUICK_STATUS).wait_for("site-ready")
    return path


def heard_until(said: Callable[[], list[tuple[str, bytes]]], kind: str) -> list[tuple[str, bytes]]:
    """What comes, up to and with a message of this kind."""
    came: list[tuple[str, bytes]] = []
    while kind not in [one for one, _ in came]:
        came += wait_until(said, within=SOON, what=kind)
    return came


def site_of(house: House) -> Daemon:
    return next(daemon for daemon in house.running.daemons if daemon.name == "cleveland")


def test_with_a_policy_that_is_wrong_in_any_key_no_job_runs_and_no_byte_leaves(house: House, policy: Path) -> None:
    site = site_of(house)
    policy.write_text("")
    read_anew(site)
    job = house.submit(stop={"versions": 2})
    wrong: list[str] = []
    declined = was_read = 0
    with tap(house.running.url("aggregator"), "cleveland") as said:
        for name, text in mutations():
            policy.write_text(text)
            if read_anew(site)["event"] == "policy-unread":
                came = heard_until(said, "leave") if was_read else said()
                since = [kind for kind, _ in came].index("join") if was_read else 0  # what came before was from before
                wrong += [f"{name}: {kind}" for kind, _ in came[since:] if kind not in ALWAYS]
                was_read = 0
                continue
            # given what a file may say, and what this job is then refused for
            came, was_read = heard_until(said, "offer-answer"), 1
            answers = [json.loads(body) for kind, body in came if kind == "offer-answer"]
            declined += len(answers)
            wrong += [f"{name}: {answer}" for answer in answers if answer["accepted"] is not False]
            wrong += [f"{name}: {kind}" for kind, _ in came if kind not in ALWAYS | {"offer-answer"}]
        assert wrong == []
        assert declined > 0
        for unread in (policy.unlink, policy.mkdir):
            unread()
            assert read_anew(site)["event"] == "policy-unread"
        assert {kind for kind, _ in said()} <= ALWAYS
        wait_until(
            lambda: "the site's policy cannot be read" in house.site("cleveland")["reason"],
            within=SOON,
            what="the site's reason why it is out",
        )
        # then, once it can be read, the job runs
        policy.rmdir()
        policy.write_text(as_toml(GOOD))
        house.ended(job)
        assert {"offer-answer", "update"} <= {kind for kind, _ in said()}


def test_a_job_that_runs_goes_by_the_policy_as_it_changes(house: House, policy: Path) -> None:
    site = site_of(house)
    job = house.submit(stop={"versions": 100000}, local=LOCAL)
    house.committed(2)
    # given a policy that allows no such job any more: it ends here, with the reason
    policy.write_text(as_toml(GOOD).replace('"max": 10}', '"max": 1}').replace('"max" = 10}', '"max" = 1}'))
    read_anew(site)
    declined = house.aggregator.wait_for("site-declined", job=job)
    assert "local.steps is 2, this site's policy allows 1 to 1" in declined["text"]
    wait_until(lambda: not site.trainers(), within=SOON, what="the end of the trainer")
    # one that allows it: it goes on
    policy.write_text(as_toml(GOOD))
    read_anew(site)
    before = len(house.versions(job))
    wait_until(lambda: len(house.versions(job)) > before, within=SOON, what="one more version")
    # and hours that are over: the trainer ends, nothing of the data leaves, and the site says why
    policy.write_text(as_toml(GOOD).replace("mon-sun 00:00-24:00", closed()))
    read_anew(site)
    wait_until(lambda: not site.trainers(), within=SOON, what="the end of the trainer")
    with tap(house.running.url("aggregator"), "cleveland") as said:
        assert site.wait_for("paused", job=job)["text"].startswith("until ")
        wait_until(
            lambda: "paused by its policy" in str(house.site("cleveland")["jobs"]),
            within=SOON,
            what="the site's word that it is paused",
        )
        assert {kind for kind, _ in said()} <= ALWAYS | {"offer-answer"}
    house.fedbus("abort", job)
    house.ended(job, state="aborted")


def closed() -> str:
    """A window that is not open now, nor in the next hours."""
    day = (time.gmtime().tm_wday + 3) % 7
    return f"{DAYS[day]} 12:00-13:00"


LOCAL: dict[str, Any] = {"steps": 2, "batch_size": 32, "learning_rate": 0.05, "evaluate": False}
