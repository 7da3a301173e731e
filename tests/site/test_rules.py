"""The rules that hold at a site as its policy's file, the clock and the day change."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedbus.core.job.hospital import Submission
from fedbus.core.job.policy import SitePolicy
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import PolicyError, WithheldError
from fedbus.site.policy_file import MOST_BYTES, read_policy
from fedbus.site.rules import COUNTS_FILE, SiteRules
from tests.core.test_hospital import TEXT

MONDAY = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)  # 13:00 in Berlin
GOOD = TEXT.replace(",\n    ", ", ").replace('fingerprint = "3f2a-91bc-0000-ffff"', 'fingerprint = "any"')
ALWAYS_OPEN = GOOD.replace("mon-fri 19:00-07:00", "mon-sun 00:00-24:00")
ALICE = Submission(submitter="alice")
SPEC = TrainingSpec.parse(
    {
        "name": "j",
        "task": "heart",
        "local": {"steps": 100, "batch_size": 16, "learning_rate": 0.1},
        "stop": {"versions": 1},
        "min_contributors": 3,
    }
)
FLOOR = SitePolicy(site="va", installed_tasks=frozenset({"heart"}), data_tags=("hearts-2026",))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = MONDAY

    def __call__(self) -> float:
        return self.at.timestamp()


class Desk:
    """A site's rules, with a file that a test writes and a clock that it sets."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.file = folder / "policy.toml"
        self.file.write_text(text)
        self.clock = Clock()
        self.rules = self.begun()

    def begun(self) -> SiteRules:
        return SiteRules(FLOOR, self.file, state=self.folder, now=self.clock)

    def pass_by(self, **hours: float) -> None:
        self.clock.at += timedelta(**hours)
        self.rules.tick()


def update(body_bytes: int = 400, **effort: int) -> m.UpdateManifest:
    return m.UpdateManifest(
        job="j",
        update_id="va:00000000:0",
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(**({"num_examples": 50, "steps": 100} | effort)),
        layout_digest="",
        frames=1,
        body_bytes=body_bytes,
    )


@pytest.mark.parametrize("text", ["", "format = 1", "\x00", "[" * 5000, GOOD.replace("Europe/Berlin", "Mars/Olympus")])
async def test_while_the_policy_cannot_be_read_nothing_is_allowed(tmp_path: Path, text: str) -> None:
    desk = Desk(tmp_path, text)
    assert str(desk.rules.shut).startswith("the site's policy cannot be read: ")
    assert desk.rules.policy.tasks == ()
    assert not desk.rules.may_leave("j")
    assert desk.rules.digest == ""

    desk.file.write_text(ALWAYS_OPEN)

    assert desk.rules.refresh()
    assert desk.rules.shut is None
    assert desk.rules.policy.tasks == ("heart",)


async def test_what_is_no_file_or_too_large_is_no_policy(tmp_path: Path) -> None:
    (tmp_path / "large").write_text(GOOD + "#" * MOST_BYTES)
    for name in ("none", ".", "large"):
        with pytest.raises(PolicyError):
            read_policy(tmp_path / name)
    with pytest.raises(PolicyError, match="expected a file"):
        read_policy(Path("/dev/zero"))


async def test_a_job_that_another_policy_refuses_is_named_with_the_reason(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ALWAYS_OPEN)
    desk.rules.take("j", SPEC, ALICE)
    assert desk.rules.may_leave("j")

    desk.file.write_text(ALWAYS_OPEN.replace("max = 100}", "max = 99}"))

    assert desk.rules.refresh()
    assert "local.steps is 100" in str(desk.rules.refusal("j"))
    assert not desk.rules.may_leave("j")
    assert not desk.rules.refresh()  # nothing has changed since


async def test_outside_its_hours_a_site_pauses_and_says_until_when(tmp_path: Path) -> None:
    desk = Desk(tmp_path, GOOD)
    desk.rules.take("j", SPEC, ALICE)
    assert desk.rules.pause == "until mon 19:00 Europe/Berlin"
    waiting = asyncio.create_task(desk.rules.admit(update()))
    await asyncio.sleep(0)
    assert not waiting.done()

    desk.pass_by(hours=6)

    assert desk.rules.pause is None
    await waiting


async def test_an_update_that_never_may_leave_is_withheld(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ALWAYS_OPEN)
    for never in (update(num_examples=49), update(steps=101), update(body_bytes=1001)):
        with pytest.raises(WithheldError):
            await desk.rules.admit(never)


async def test_bytes_of_the_day_are_counted_before_they_leave_and_outlive_the_daemon(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ALWAYS_OPEN)
    await desk.rules.admit(update())
    desk.rules = desk.begun()
    await desk.rules.admit(update())
    waiting = asyncio.create_task(desk.rules.admit(update()))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert not desk.rules.has_room(201)

    desk.pass_by(hours=11)  # midnight in Berlin

    await waiting
    assert desk.rules.has_room(600)


async def test_steps_of_the_day_are_counted_when_a_training_begins(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ALWAYS_OPEN)
    desk.rules.take("j", SPEC, ALICE)
    for _ in range(10):
        assert desk.rules.training_pause("j") is None
        desk.rules.charge_steps(100)
    assert desk.rules.training_pause("j") == "the steps of the day are used up"
    desk.pass_by(days=1)
    assert desk.rules.training_pause("j") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"day": "2026-11-30", "steps": -1, "bytes": 0}', "\x00" * 2000])
async def test_a_damaged_count_is_a_day_that_is_used_up(tmp_path: Path, content: str) -> None:
    (tmp_path / COUNTS_FILE).write_text(content)
    desk = Desk(tmp_path, ALWAYS_OPEN)
    assert not desk.rules.has_room(1)
    desk.pass_by(days=1)
    assert desk.rules.has_room(1)


async def test_a_clock_that_is_set_back_gives_no_fresh_day(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ALWAYS_OPEN)
    desk.rules.charge_bytes(1000, durably=True)
    desk.clock.at -= timedelta(days=2)
    assert not desk.rules.has_room(1)
    assert not desk.begun().has_room(1)


async def test_without_a_policy_the_settings_alone_decide(tmp_path: Path) -> None:
    rules = SiteRules(FLOOR, None, state=tmp_path, now=Clock())
    assert not rules.are_written
    assert not rules.refresh(anew=True)
    assert rules.pause is None
    assert rules.may_leave("j")
    await rules.admit(update(body_bytes=10**12, num_examples=0))
    assert not rules.has_room(0) or not any(tmp_path.glob("*"))  # noqa: ASYNC240
