"""Whose trouble an error is: one update's, one job's, or everybody's. What goes wrong for one must cost no other.

an update    its body cannot be read, whatever the reason: it is refused with that reason
a job        everything else in its own work: it is taken up again from the ledger, as after a restart of the
             process; what goes wrong MOST_TROUBLES times without any progress in between ends it as failed
everybody    the ledger cannot be written, the broker refuses the login: the daemon ends, and its supervisor starts it
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import structlog

from fedbus.errors import (
    BusError,
    DecodeError,
    DiskFullError,
    FedbusError,
    LayoutError,
    NoSuchQueueError,
    ProtocolError,
    PublishError,
    StoreError,
)

MOST_TROUBLES = 3
FIRST_PAUSE_S = 1.0
MOST_CHARS = 300

log = structlog.get_logger()


@contextmanager
def body_errors() -> Iterator[None]:
    """Whatever reading the body of an update raises becomes a DecodeError, which refuses that update.

    But a full disk, which is waited out.
    """
    try:
        yield
    except (DecodeError, DiskFullError, LayoutError):
        raise
    except Exception as exc:
        raise DecodeError(f"cannot be read: {words(exc)}") from exc


def first_of(exc: BaseException) -> BaseException:
    """The first error of a group of errors, however deep; the error itself when it is none."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def everybodys(exc: BaseException) -> bool:
    """Whether an error in the work of one job says that the broker cannot be used at all."""
    first = first_of(exc)
    return isinstance(first, BusError) and not isinstance(first, PublishError | NoSuchQueueError)


def words(exc: BaseException) -> str:
    """What an error says, for people: not longer than MOST_CHARS."""
    first = first_of(exc)
    said = str(first) if isinstance(first, FedbusError) else f"{type(first).__name__}: {first}"
    return said if len(said) <= MOST_CHARS else f"{said[:MOST_CHARS]}…"


class Job(Protocol):
    """What can be told that something went wrong in it."""

    job: str

    def broke(self, exc: Exception) -> None: ...


@contextmanager
def jobs_own(runner: Job) -> Iterator[None]:
    """What a job raises when it is told something ends that job's task, not the teller's.

    But an illegal message, which is its sender's trouble, and what is everybody's.
    """
    try:
        yield
    except (ProtocolError, StoreError, BusError):
        raise
    except Exception as exc:
        log.exception("job-broke", job=runner.job)
        runner.broke(exc)


class Troubles:
    """Counts what went wrong in one job since it last moved."""

    def __init__(self) -> None:
        self._progress: object = None
        self._count = 0

    def pause_s(self, progress: object) -> float | None:
        """How long to wait before the job is taken up again; None: it is given up."""
        self._count = self._count + 1 if progress == self._progress else 1
        self._progress = progress
        return None if self._count > MOST_TROUBLES else FIRST_PAUSE_S * 2 ** (self._count - 1)
