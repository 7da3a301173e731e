"""When a job that stands still says why: soon, then ever more seldom, so that a night's log stays readable."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 10.0
LONGEST_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stall:
    progress: object
    tell_at: float
    pause_s: float


class Stalls:
    """Remembers for each job when it last moved."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Stall] = {}

    def should_tell(self, job: str, progress: object, *, now: float) -> bool:
        """Whether to say now why the job waits; `progress` is anything that changes when the job moves.

        First after FIRST_S without a change, then after pauses that double up to LONGEST_S.
        """
        stall = self._jobs.get(job)
        if stall is None or stall.progress != progress:
            self._jobs[job] = _Stall(progress=progress, tell_at=now + FIRST_S, pause_s=FIRST_S)
            return False
        if now < stall.tell_at:
            return False
        pause_s = min(2 * stall.pause_s, LONGEST_S)
        self._jobs[job] = _Stall(progress=progress, tell_at=now + pause_s, pause_s=pause_s)
        return True
