"""An audit log: what is in it stays, whatever kills its writer; whoever changes it is named."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedbus.errors import StoreError
from fedbus.store.audit import AuditLog, files_of, lines_of, newest
from fedbus.store.audit_check import verify
from fedbus.store.audit_kinds import MEANINGS, Kind
from fedbus.store.audit_line import MOST_TEXT, Entry, Head, Line, read_line

NOVEMBER = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
DAY_S = 86400.0


class Clock:
    """Seconds since the epoch, set by hand."""

    def __init__(self, now: float = NOVEMBER) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def entries(count: int, *, at: float = NOVEMBER) -> list[Entry]:
    return [Entry(kind=Kind.UPDATE_LEAVES, at=at, facts={"update": f"mercy:0123abcd:{n}"}) for n in range(count)]


def filled(folder: Path, count: int = 8) -> AuditLog:
    log = AuditLog(folder, clock=Clock())
    log.append(entries(count))
    return log


def raw_lines(folder: Path) -> list[bytes]:
    return files_of(folder)[-1].read_bytes().splitlines(keepends=True)


def put_lines(folder: Path, lines: list[bytes]) -> None:
    files_of(folder)[-1].write_bytes(b"".join(lines))


def read(folder: Path) -> list[Line]:
    found = [line for file in files_of(folder) for _, line in lines_of(file)]
    assert all(isinstance(line, Line) for line in found)
    return [line for line in found if isinstance(line, Line)]


def test_every_line_has_the_hash_of_the_one_before_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    log = filled(tmp_path / "audit", 3)
    lines = read(tmp_path / "audit")
    assert [line.kind for line in lines] == ["log-begun", *["update-leaves"] * 3]
    assert [line.sequence for line in lines] == [1, 2, 3, 4]
    assert [line.before for line in lines[1:]] == [line.sha256 for line in lines[:-1]]
    assert log.head == lines[-1].head == Head.parse(str(log.head))
    assert lines[1].at == "2026-11-20T00:00:00.000Z"
    (file,) = files_of(tmp_path / "audit")
    assert file.name == "2026-11.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    verdict = verify(tmp_path / "audit", [log.head])
    assert (verdict.fault, verdict.lines, verdict.heads) == (None, 4, 1)


def test_a_log_that_is_opened_again_goes_on_and_two_writers_keep_one_chain(tmp_path: Path) -> None:
    daemon = filled(tmp_path, 2)
    command = AuditLog(tmp_path, clock=Clock())
    command.append([Entry(kind=Kind.STOP_NOW, at=NOVEMBER)])
    daemon.append(entries(1))
    assert [line.kind for line in read(tmp_path)][-2:] == ["stop-now", "update-leaves"]
    assert verify(tmp_path).fault is None


def test_a_month_has_its_own_file_and_a_clock_set_back_writes_into_no_earlier_one(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path, clock=clock)
    for now in (NOVEMBER, NOVEMBER + 15 * DAY_S, NOVEMBER):
        clock.now = now
        log.append(entries(1, at=now))
    assert [file.name for file in files_of(tmp_path)] == ["2026-11.jsonl", "2026-12.jsonl"]
    assert [len(list(lines_of(file))) for file in files_of(tmp_path)] == [2, 2]
    assert verify(tmp_path).fault is None


@pytest.mark.parametrize("kept", range(0, 140, 7))
def test_a_line_that_a_kill_has_cut_is_closed_and_the_chain_holds(tmp_path: Path, kept: int) -> None:
    filled(tmp_path, 2)
    (file,) = files_of(tmp_path)
    whole = file.read_bytes()
    *_, last = whole.splitlines(keepends=True)
    file.write_bytes(whole[: len(whole) - len(last)] + last[:kept])
    # killed again while it closes the line
    AuditLog(tmp_path, clock=Clock())
    file.write_bytes(file.read_bytes()[: len(whole) - len(last) + kept + 30])
    log = AuditLog(tmp_path, clock=Clock())
    log.append(entries(1))
    verdict = verify(tmp_path)
    assert verdict.fault is None
    assert [line.kind for line in read(tmp_path)][:2] == ["log-begun", "update-leaves"]
    assert ("a kill has cut" in "".join(verdict.notes)) == bool(kept)


def test_a_last_line_that_was_cut_by_hand_is_told_from_a_kill_by_its_head(tmp_path: Path) -> None:
    log = filled(tmp_path, 4)
    sent = log.head
    *rest, last = raw_lines(tmp_path)
    put_lines(tmp_path, [*rest, last[:50]])
    AuditLog(tmp_path, clock=Clock())
    assert verify(tmp_path).fault is None
    fault = verify(tmp_path, [sent]).fault
    assert fault is not None
    assert fault.number == 5
    assert "rewritten: sequence 5" in fault.text


def swap(lines: list[bytes]) -> None:
    lines[4], lines[5] = lines[5], lines[4]


def insert(lines: list[bytes]) -> None:
    before = read_line(lines[3][:-1])
    assert before is not None
    record = json.loads(lines[4]) | {"before": before.sha256, "facts": {"update": "mine"}}
    lines.insert(4, json.dumps(record, separators=(",", ":")).encode() + b"\n")


def edit(number: int) -> Callable[[list[bytes]], None]:
    def change(lines: list[bytes]) -> None:
        lines[number - 1] = lines[number - 1].replace(b"mercy", b"march")

    return change


def unlink_line(lines: list[bytes]) -> None:
    lines[4] = lines[4].replace(b'"before":"', b'"before":"0', 1)


def garble(lines: list[bytes]) -> None:
    lines[4] = lines[4][:40] + b"\n"


def delete(lines: list[bytes]) -> None:
    del lines[4]


def delete_two(lines: list[bytes]) -> None:
    del lines[4:6]


def copy(lines: list[bytes]) -> None:
    lines.insert(6, lines[2])


@pytest.mark.parametrize(
    ("change", "number", "word"),
    [
        (edit(5), 5, "edited"),
        (edit(2), 2, "edited"),
        (unlink_line, 5, "edited"),
        (garble, 5, "edited or cut"),
        (delete, 5, "cut: sequence 5 is gone"),
        (delete_two, 5, "cut: sequence 5 to 6 is gone"),
        (swap, 5, "swapped"),
        (insert, 5, "inserted"),
        (copy, 7, "inserted"),
    ],
)
def test_the_first_line_that_was_changed_is_named(
    tmp_path: Path, change: Callable[[list[bytes]], None], number: int, word: str
) -> None:
    filled(tmp_path, 8)
    lines = raw_lines(tmp_path)
    change(lines)
    put_lines(tmp_path, lines)
    fault = verify(tmp_path).fault
    assert fault is not None
    assert (fault.file, fault.number) == ("2026-11.jsonl", number)
    assert word in fault.text


def test_lines_that_are_gone_at_the_end_or_were_all_rewritten_are_told_by_a_head(tmp_path: Path) -> None:
    log = filled(tmp_path / "cut", 8)
    put_lines(tmp_path / "cut", raw_lines(tmp_path / "cut")[:-3])
    assert verify(tmp_path / "cut").fault is None
    assert "cut at the end: the last line is sequence 6" in str(verify(tmp_path / "cut", [log.head]).fault)

    sent = filled(tmp_path / "again", 8).head
    (tmp_path / "again" / "2026-11.jsonl").unlink()
    forged = AuditLog(tmp_path / "again", clock=Clock())
    forged.append([Entry(kind=Kind.MESSAGE_LEAVES, at=NOVEMBER)] * 12)
    assert verify(tmp_path / "again").fault is None
    assert "rewritten: sequence 9" in str(verify(tmp_path / "again", [sent]).fault)


def test_old_months_go_and_the_rest_says_where_it_begins(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path, keep_days=60, clock=clock)
    early = log.append(entries(3))[-1]
    for _ in range(3):
        clock.now += 31 * DAY_S
        log.append(entries(2, at=clock.now))
    assert [file.name for file in files_of(tmp_path)] == ["2027-01.jsonl", "2027-02.jsonl"]
    verdict = verify(tmp_path, [early, log.head])
    assert verdict.fault is None
    assert verdict.first > 4
    assert f"begins at sequence {verdict.first}" in verdict.notes[0]
    # and whoever deletes more than was said is named
    files_of(tmp_path)[0].unlink()
    assert "cut: sequence 1 to" in str(verify(tmp_path).fault)


def test_a_disk_that_cannot_be_written_leaves_nothing_and_the_next_try_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = filled(tmp_path, 2)
    size = files_of(tmp_path)[0].stat().st_size
    written = os.write

    def half(fd: int, data: bytes) -> int:
        written(fd, data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedbus.store.audit.os.write", half)
    with pytest.raises(StoreError, match="the disk is full"):
        log.append(entries(3))
    monkeypatch.undo()
    assert files_of(tmp_path)[0].stat().st_size == size
    log.append(entries(1))
    assert verify(tmp_path).lines == 4


def test_a_log_that_ends_in_what_is_no_line_is_not_written_to(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with files_of(tmp_path)[0].open("ab") as file:
        file.write(b"hello\n")
    with pytest.raises(StoreError, match=r"no line of an audit log.*move it away"):
        AuditLog(tmp_path, clock=Clock())


def test_facts_are_bounded_whatever_somebody_says(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, clock=Clock())
    facts = {"reason": "x\x1b[2J" + "y" * 9999, "nan": float("nan"), "many": list(range(999)), "map": {"k": b"v"}}
    log.append([Entry(kind=Kind.JOB_DECLINED, at=NOVEMBER, facts=facts)])
    line = newest(tmp_path, Kind.JOB_DECLINED)
    assert line is not None
    assert len(line.facts["reason"]) == MOST_TEXT
    assert "\x1b" not in line.facts["reason"]
    assert len(line.facts["many"]) == 32
    assert verify(tmp_path).fault is None


def test_every_kind_has_its_meaning() -> None:
    assert set(MEANINGS) == set(Kind)


def test_a_line_that_is_being_written_is_no_fault(tmp_path: Path) -> None:
    head = filled(tmp_path, 2).head
    with files_of(tmp_path)[0].open("ab") as file:
        file.write(b'{"sequence":4,"at"')
    verdict = verify(tmp_path, [head])
    assert (verdict.fault, verdict.lines) == (None, 3)
    assert "18 bytes of a line that is being written" in verdict.notes[0]


@pytest.mark.parametrize("text", ["", "4", "4:abc", "0:0123456789abcdef", "4:0123456789abcdeg", "x:0123456789abcdef"])
def test_a_head_to_compare_with_is_a_sequence_and_enough_of_a_hash(text: str) -> None:
    with pytest.raises(ValueError, match="expected SEQUENCE:HASH"):
        Head.compared(text)


def test_the_short_head_that_people_read_to_each_other_is_compared(tmp_path: Path) -> None:
    head = filled(tmp_path, 2).head
    assert verify(tmp_path, [Head.compared(head.short.upper())]).heads == 1
    other = Head.compared(head.short[:-1] + ("0" if head.short[-1] != "0" else "1"))
    assert "rewritten" in str(verify(tmp_path, [other]).fault)
