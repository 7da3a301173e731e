"""Whether an audit log is what was written: its chain, and the heads of it that others keep.

The chain alone shows a line that was edited, cut, inserted or moved by somebody who left the lines behind it as they
were. Whoever rewrites all lines to the end makes a chain that is right again, and only a head that was sent before
tells. So does the line that closes a cut one: a kill leaves the same trace as an editor who cuts the last line, but
what a kill has cut was never sent, and so no head of that sequence is known anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fedbus.core.words import counted
from fedbus.store.audit import files_of, lines_of
from fedbus.store.audit_kinds import Kind
from fedbus.store.audit_line import NOTHING, START, Head, Line, hash_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first thing that is wrong: in which file and line, and what."""

    file: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.file} line {self.number}: {self.text}" if self.file else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of so many lines, the first with sequence `first`.

    began, ended: when, in UTC. heads: how many of others' heads were found in it. notes: what is no fault.
    """

    lines: int
    first: int
    began: str
    ended: str
    head: Head
    fault: Fault | None
    heads: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _At:
    """A line where it stands; `line` None: it is no line of an audit log, or a line without an end of so many bytes."""

    file: str
    number: int
    line: Line | None
    sha256: str
    begun_bytes: int = 0


def verify(folder: Path, heads: Sequence[Head] = ()) -> Verdict:
    """Read the whole log and hold it to its chain and to these heads. Raises StoreError when it cannot be read."""
    wanted: dict[int, list[Head]] = {}
    for head in heads:
        wanted.setdefault(head.sequence, []).append(head)
    before: _At | None = None
    lines, first, found, began = 0, 0, 0, ""
    deleted: dict[int, str] = {}
    notes: list[str] = []
    fault: Fault | None = None
    for place, at in enumerate(_all(folder)):
        if at.begun_bytes:
            notes.append(f"ends with {at.begun_bytes} bytes of a line that is being written, or that a kill has cut")
            break
        fault = fault or (_first_fault(at) if before is None else _link_fault(folder, place, before, at))
        if fault is not None or at.line is None:
            break
        lines, first, began = lines + 1, first or at.line.sequence, began or at.line.at
        found += sum(head.is_of(at.line) for head in wanted.get(at.line.sequence, ()))
        fault = _head_fault(at, wanted.get(at.line.sequence, ()))
        if at.line.kind == Kind.LINES_DELETED:
            deleted[_number(at.line.facts.get("until"))] = str(at.line.facts.get("sha256"))
        if at.line.cut_bytes:
            notes.append(f"{at.file} line {at.number}: {at.line.cut_bytes} bytes of a line that a kill has cut, closed")
        before = at
    head, ended = (NOTHING, "") if before is None or before.line is None else (before.line.head, before.line.at)
    if fault is None and before is not None and before.line is not None:
        fault = _begin_fault(folder, deleted) or _end_fault(before.line, heads)
        if first > 1:
            notes.append(f"begins at sequence {first}: what was before is older than audit_keep_days and was deleted")
    notes += [f"head {h.sequence} is of a line that was deleted" for h in heads if 0 < h.sequence < first]
    return Verdict(
        lines=lines,
        first=first,
        began=began,
        ended=ended,
        head=head,
        fault=fault,
        heads=found,
        notes=tuple(notes),
    )


def _all(folder: Path) -> Iterator[_At]:
    files = files_of(folder)
    for file in files:
        for number, line in lines_of(file):
            if isinstance(line, Line):
                yield _At(file=file.name, number=number, line=line, sha256=line.sha256)
            else:
                begun = 0 if line.whole or file != files[-1] else len(line.data)
                yield _At(file=file.name, number=number, line=None, sha256=hash_of(line.data), begun_bytes=begun)


def _fault(at: _At, text: str) -> Fault:
    return Fault(file=at.file, number=at.number, text=text)


def _first_fault(at: _At) -> Fault | None:
    if at.line is None:
        return _fault(at, "edited or cut: this is no line of an audit log")
    if at.line.sequence == 1 and at.line.before != START:
        return _fault(at, "edited: the first line has a hash of a line before it")
    return None


def _link_fault(folder: Path, place: int, before: _At, at: _At) -> Fault | None:
    """Why a line does not follow the one before it; `place`: so many lines stand before it in the log."""
    if at.line is None:
        return _fault(at, "edited or cut: this is no line of an audit log")
    previous = before.line
    if previous is None:
        return None
    fits = at.line.before == before.sha256
    due = previous.sequence + 1
    if fits and at.line.sequence == due:
        return None
    if fits:
        return _fault(at, f"edited: its sequence is {at.line.sequence}, expected {due}")
    return _why(folder, place, before, at, due)


def _why(folder: Path, place: int, before: _At, at: _At, due: int) -> Fault:
    """Name what happened by where the line is that this one follows: read again, for it is seldom asked."""
    others = list(_all(folder))
    sequence = due if at.line is None else at.line.sequence
    behind = next(islice(others, place + 1, None), None)
    hash_before = "" if at.line is None else at.line.before
    follows = next((i for i, one in enumerate(others) if one.sha256 == hash_before), None)
    replaced = behind is not None and behind.line is not None and behind.line.before == before.sha256
    if follows is not None and (follows > place or not replaced):
        return _moved(others, place, at, follows)
    if replaced:
        return _fault(at, "inserted: the line behind it follows the one before it")
    if sequence > due:
        gone = f"{due}" if sequence == due + 1 else f"{due} to {sequence - 1}"
        return _fault(at, f"cut: sequence {gone} is gone before this line")
    if sequence < due or (behind is not None and behind.line is not None and behind.line.before != at.sha256):
        return _fault(at, "edited: it follows no line that is here, and none follows it")
    return _fault(before, f"edited: the line behind it, sequence {sequence}, has another hash of it")


def _moved(others: Sequence[_At], place: int, at: _At, follows: int) -> Fault:
    """The line that this one follows is elsewhere."""
    if follows > place:
        there = others[follows]
        return _fault(at, f"swapped: it follows {there.file} line {there.number}, which stands behind it")
    count = place - follows - 1
    return _fault(others[follows + 1], f"inserted: {counted(count, 'line')} that the line behind does not follow")


def _head_fault(at: _At, heads: Sequence[Head]) -> Fault | None:
    if at.line is None or all(head.is_of(at.line) for head in heads):
        return None
    return _fault(
        at,
        f"rewritten: sequence {at.line.sequence} was sent with another hash; this line, or one before it, is not that",
    )


def _begin_fault(folder: Path, deleted: dict[int, str]) -> Fault | None:
    """Lines are gone at the beginning, and no line says that they were deleted."""
    at = next(_all(folder), None)
    if at is None or at.line is None or at.line.sequence == 1:
        return None
    if deleted.get(at.line.sequence - 1) == at.line.before:
        return None
    return _fault(at, f"cut: sequence 1 to {at.line.sequence - 1} is gone, and no line says that it was deleted")


def _end_fault(last: Line, heads: Sequence[Head]) -> Fault | None:
    newest = max((head.sequence for head in heads), default=0)
    if newest <= last.sequence:
        return None
    text = f"cut at the end: the last line is sequence {last.sequence}, the head of sequence {newest} was sent"
    return Fault(file="", number=0, text=text)


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1
