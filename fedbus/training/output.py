"""What a task prints, on its way into the site's log: whole lines, so many per minute, the rest counted and said.

Bytes in, lines out; no I/O here. Each line that goes on begins with KEPT (the task's words) or SAID (ours), has at most
LONGEST_LINE bytes and a newline, so that a pipe takes it whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator

KEPT, SAID = b" ", b"!"
LONGEST_LINE = 2000
BURST_LINES, LINES_PER_MINUTE = 400, 60
BURST_BYTES, BYTES_PER_MINUTE = 64 << 10, 8 << 10
SAY_EVERY_S = 60.0
FIRST_SAID_S = 1.0


class Allowance:
    """So many units at once, and so many more per minute."""

    def __init__(self, burst: int, per_minute: int, now: float) -> None:
        self._burst = burst
        self._per_s = per_minute / 60
        self._left = float(burst)
        self._at = now

    def has(self, units: int, now: float) -> bool:
        """Say whether so many are left."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        return self._left >= units

    def take(self, units: int) -> None:
        self._left -= units


class Output:
    """The output of one trainer. Times are seconds of any clock that only goes on."""

    def __init__(self, now: float) -> None:
        self._lines = Allowance(BURST_LINES, LINES_PER_MINUTE, now)
        self._bytes = Allowance(BURST_BYTES, BYTES_PER_MINUTE, now)
        self._begun = b""
        self._skips_line = False
        self._lost_lines = 0
        self._lost_bytes = 0
        self._say_at: float | None = None

    def feed(self, data: bytes, now: float) -> Iterator[bytes]:
        """Take what was printed and give the lines that go on."""
        if not self._lines.has(1, now):  # a flood is counted, not read
            self._count(data, now)
            return
        *whole, last = data.replace(b"\r", b"\n").split(b"\n")
        for part in whole:
            yield from self._line(self._begun + part, now)
            self._begun, self._skips_line = b"", False
        self._begun += last
        if len(self._begun) > LONGEST_LINE:
            yield from self._line(self._begun, now)
            self._begun, self._skips_line = b"", True

    def tick(self, now: float) -> Iterator[bytes]:
        """Give what is to be said about lost output by now."""
        if self._say_at is not None and now >= self._say_at:
            yield self._report()
            self._say_at = now + SAY_EVERY_S if self._lost_bytes else None

    def finish(self, now: float) -> Iterator[bytes]:
        """The trainer has ended: give its last line and what is still to be said."""
        yield from self._line(self._begun, now)
        self._begun = b""
        if self._lost_bytes:
            yield self._report()

    def lost(self, text: bytes, now: float, *, lines: int = 1) -> None:
        """Count what did not go on."""
        self._lost_lines += lines
        self._lost_bytes += len(text)
        if self._say_at is None:
            self._say_at = now + FIRST_SAID_S

    @property
    def next_s(self) -> float | None:
        """When `tick` has something to say; None when nothing was lost."""
        return self._say_at

    def _count(self, data: bytes, now: float) -> None:
        self.lost(self._begun + data, now, lines=data.count(b"\n"))
        self._begun, self._skips_line = b"", not data.endswith(b"\n")

    def _line(self, line: bytes, now: float) -> Iterator[bytes]:
        if self._skips_line or not line.strip():
            self._lost_bytes += len(line) if self._skips_line else 0
            return
        kept = line[:LONGEST_LINE]
        if self._lines.has(1, now) and self._bytes.has(len(kept), now):
            self._lines.take(1)
            self._bytes.take(len(kept))
            self._lost_bytes += len(line) - len(kept)
            yield KEPT + kept + b"\n"
        else:
            self.lost(line, now)

    def _report(self) -> bytes:
        words = (
            f"{self._lost_lines} lines, {self._lost_bytes} bytes that the task printed are not in this log: it takes "
            f"{BURST_LINES} lines at once, then {LINES_PER_MINUTE} a minute"
        )
        self._lost_lines = self._lost_bytes = 0
        return SAID + words.encode() + b"\n"
