"""Residuals beside the outbox: each counts once, whatever is refused and whenever the site is killed.

The trainer is a function that adds up numbers in files: the residual of update n is what it was, plus 10**n.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.messages import UpdateId, UpdateKind, UpdateManifest
from fedbus.store.outbox import Outbox
from fedbus.store.residuals import Source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


def value_of(source: Source) -> int:
    return sum(int(p.read_text()) for p in source.add) - sum(int(p.read_text()) for p in source.subtract)


def train(outbox: Outbox, update_id: UpdateId, source: Source) -> None:
    """What the trainer writes."""
    residual = value_of(source)
    if source.add:
        source.before.write_text(str(residual))
    outbox.frames_path(update_id).write_bytes(b"frames")
    source.after.write_text(str(residual + 10**update_id.sequence))


def manifest(update_id: UpdateId) -> UpdateManifest:
    return UpdateManifest(
        job="heart",
        update_id=str(update_id),
        kind=UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1, steps=3),
        layout_digest="1a",
        frames=1,
        body_bytes=1,
    )


def put(outbox: Outbox) -> UpdateId:
    update_id = outbox.next_id()
    source = outbox.residual_source(update_id)
    train(outbox, update_id, source)
    outbox.commit(update_id, manifest(update_id), [6], residual=source)
    return update_id


def residual(folder: Path) -> int:
    """What would go into the next update after a restart now."""
    outbox = Outbox(folder, "mercy")
    return value_of(outbox.residual_source(outbox.next_id()))


def test_each_update_starts_from_what_the_one_before_left_out(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    for _ in range(3):
        outbox.remove(put(outbox))
    assert residual(folder) == 111


def test_a_refused_update_leaves_the_residual_as_it_was(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    first, second = put(outbox), put(outbox)
    outbox.remove(first)
    outbox.remove(second, refused=True)
    assert residual(folder) == 1


def test_a_site_that_rebases_begins_from_nothing(folder: Path) -> None:
    # given residuals of two updates, one of them refused
    outbox = Outbox(folder, "mercy")
    first, second = put(outbox), put(outbox)
    outbox.remove(first)
    outbox.remove(second, refused=True)
    # when the next one is made afresh
    update_id = outbox.next_id()
    source = outbox.residual_source(update_id, fresh=True)
    assert (source.add, source.subtract) == ((), ())
    train(outbox, update_id, source)
    outbox.commit(update_id, manifest(update_id), [6], residual=source)
    # then only what it left out counts from then on, and the refusal is done
    outbox.remove(update_id)
    assert residual(folder) == 10**update_id.sequence


def test_the_first_update_may_be_refused(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    outbox.remove(put(outbox), refused=True)
    assert residual(folder) == 0


def test_a_late_refusal_takes_back_only_its_own_share_and_only_once(folder: Path) -> None:
    # given three updates on their way
    outbox = Outbox(folder, "mercy")
    first, second, third = put(outbox), put(outbox), put(outbox)
    # when the second is refused
    outbox.remove(second, refused=True)
    assert residual(folder) == 101
    # then the next one makes up for it, and later ones find it done
    outbox = Outbox(folder, "mercy")
    fourth = put(outbox)
    assert outbox.entry(fourth).compensates == (second.sequence,)
    for update_id in (first, third, fourth):
        outbox.remove(update_id)
    assert residual(folder) == 101 + 10**fourth.sequence


def test_an_update_that_made_up_for_others_may_be_refused_too(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    outbox.remove(put(outbox))
    outbox.remove(put(outbox), refused=True)
    outbox.remove(put(outbox), refused=True)
    assert residual(folder) == 1


def test_a_training_that_was_killed_or_cancelled_changes_nothing(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    outbox.remove(put(outbox))
    killed = outbox.next_id()
    train(outbox, killed, outbox.residual_source(killed))
    assert residual(folder) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["00000000.residual", "counter"]


def test_receipts_that_come_while_the_next_update_is_made_leave_its_files_alone(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    first = put(outbox)
    second = outbox.next_id()
    source = outbox.residual_source(second)
    train(outbox, second, source)
    outbox.remove(first, refused=True)
    outbox.commit(second, manifest(second), [6], residual=source)
    # the refusal came too late for the second: the third makes up for it
    assert residual(folder) == 10


def test_killed_between_the_refusal_and_the_end_of_its_record_it_is_refused_once(folder: Path) -> None:
    # given a site that was killed when it had marked the refusal, and that made another update since
    outbox = Outbox(folder, "mercy")
    refused = put(outbox)
    (folder / "00000000.refused").touch()
    outbox = Outbox(folder, "mercy")
    outbox.remove(put(outbox))
    # when the receipt comes again
    assert not outbox.remove(refused, refused=True)
    assert residual(folder) == 10


def test_files_do_not_pile_up(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    for number in range(20):
        outbox.remove(put(outbox), refused=number % 3 == 1)
    assert len(list(folder.iterdir())) <= 4  # the counter, the newest and the refused one's three


def test_jobs_without_feedback_have_no_residuals(folder: Path) -> None:
    outbox = Outbox(folder, "mercy")
    update_id = outbox.next_id()
    outbox.frames_path(update_id).write_bytes(b"frames")
    outbox.commit(update_id, manifest(update_id), [6])
    outbox.remove(update_id, refused=True)
    assert [p.name for p in folder.iterdir()] == ["counter"]


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_step_each_residual_counts_once(tmp_path: Path, seed: int, monkeypatch) -> None:
    # given a site that is killed before a change to its disk, drawn at random, again and again
    draw = random.Random(seed)
    folder = tmp_path / "outbox"
    expected: dict[int, bool] = {}  # committed updates: whether they were accepted or still may be
    steps_left = [10**9]

    def killable(real):
        def change(path: Path, *arguments, **options):
            steps_left[0] -= 1
            if steps_left[0] == 0:
                raise KilledError
            return real(path, *arguments, **options)

        return change

    for name in ("replace", "unlink", "touch"):
        monkeypatch.setattr(Path, name, killable(getattr(Path, name)))
    outbox = Outbox(folder, "mercy")
    for _ in range(60):
        steps_left[0] = draw.randrange(1, 25)
        deciding: tuple[UpdateId, bool] | None = None
        try:
            while True:
                if len(outbox.waiting) < draw.randrange(1, 4):
                    put(outbox)
                    deciding = None
                else:
                    deciding = (draw.choice(outbox.waiting), draw.random() < 0.4)
                    outbox.remove(deciding[0], refused=deciding[1])
                    expected[deciding[0].sequence] = not deciding[1]
                    deciding = None
        except KilledError:
            steps_left[0] = 10**9
        outbox = Outbox(folder, "mercy")
        if deciding is not None:  # the aggregator repeats its receipt
            outbox.remove(deciding[0], refused=deciding[1])
            expected[deciding[0].sequence] = not deciding[1]
    # then what goes into the next update are the shares of all that were accepted or are on their way
    for update_id in outbox.waiting:
        expected[update_id.sequence] = True
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert residual(copy) == sum(10**sequence for sequence, counts in expected.items() if counts)
