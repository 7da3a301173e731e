"""One direction of a slow line as a model: what becomes of each packet, in the time of whoever asks.

    arrives → lost at random? → room in the queue? → sent at the line's rate → delayed by half the round trip → out

Rate and queue are a virtual clock: `_free_at` is when the line has sent everything that was accepted so far. What
lives here: numbers. What may not: sockets, threads, clocks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

QUEUE_PACKETS = 100
FULL_PACKET_BYTES = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSpec:
    """A line with the same rate, delay and loss both ways. `loss` is the share of packets lost, 0 to 1."""

    mbit: float
    rtt_s: float
    loss: float

    def __post_init__(self) -> None:
        if self.mbit <= 0 or self.rtt_s < 0 or not 0 <= self.loss < 1:
            raise ValueError(f"a line has mbit > 0, rtt_s >= 0 and 0 <= loss < 1, got {self}")

    @property
    def bytes_per_s(self) -> float:
        return self.mbit * 1e6 / 8

    def ideal_s(self, size_bytes: int) -> float:
        """Seconds for `size_bytes` and the answer that they came, if nothing were lost."""
        return size_bytes / self.bytes_per_s + self.rtt_s


class Line:
    """One direction. `draw` decides on losses: seeded, so that the same packets in the same order fare the same."""

    def __init__(self, spec: LineSpec, draw: random.Random) -> None:
        self._spec = spec
        self._draw = draw
        self._free_at = 0.0
        self._most_waiting_s = QUEUE_PACKETS * FULL_PACKET_BYTES / spec.bytes_per_s
        self.lost_packets = 0
        self.passed_bytes = 0

    def arrives(self, size_bytes: int, *, now: float) -> float | None:
        """When a packet that arrives at `now` comes out at the other end; None when it is lost or the queue is full."""
        begins = max(now, self._free_at)
        if self._draw.random() < self._spec.loss or begins - now > self._most_waiting_s:
            self.lost_packets += 1
            return None
        self._free_at = begins + size_bytes / self._spec.bytes_per_s
        self.passed_bytes += size_bytes
        return self._free_at + self._spec.rtt_s / 2
