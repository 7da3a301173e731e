"""What the trainer of one job has seen of the site's labels, and when its task is opened anew to see the rest.

A task reads its data when it is opened, so labels that came since are trained on after the next opening: old and new
ones together. That is done between two trainings, and not again before three times as long has passed as it took: at
most a quarter of the time goes into it, however often labels come.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedbus.site.labels import Labels

REST = 3.0
NO_SOURCE = -1


class NewLabels:
    """Of one job and its `task`; `labels` is None at a site without a data source."""

    def __init__(self, labels: Labels | None, task: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._labels = labels
        self._task = task
        self._clock = clock
        self._seen = 0
        self._not_before = -math.inf

    @property
    def count(self) -> int:
        """How many labels are new to the task, as far as that is told; NO_SOURCE without a source."""
        return NO_SOURCE if self._labels is None else self._labels.told_for(self._task)

    @property
    def waited_for(self) -> bool:
        """Whether there are no data at all yet."""
        return self._labels is not None and not self._labels.there_are_data

    @property
    def wants_reopening(self) -> bool:
        """Whether labels came that the task has not read, and it is time to."""
        return self._labels is not None and self._labels.newest > self._seen and self._clock() >= self._not_before

    @contextmanager
    def opening(self) -> Iterator[None]:
        """The task is being opened: what is there now it reads."""
        seen = 0 if self._labels is None else self._labels.newest
        began = self._clock()
        yield
        ended = self._clock()
        self._seen, self._not_before = seen, ended + REST * (ended - began)

    def trained(self) -> None:
        """A training was done with what was read at the last opening."""
        if self._labels is not None:
            self._labels.trained(self._task, self._seen)
