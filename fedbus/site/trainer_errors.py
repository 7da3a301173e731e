"""What goes wrong with a trainer, with what of it may leave the site."""

from __future__ import annotations

from fedbus.errors import TaskError
from fedbus.training import protocol as p
from fedbus.training.sayable import Sayable, sayable


class TrainerDiedError(TaskError):
    """The trainer process ended while it was needed; `said` may leave the site, for it is written here.

    `after_cancel`: we had cancelled what it did, so that this is no failure of the task.
    """

    def __init__(self, words: str, *, after_cancel: bool = False) -> None:
        super().__init__(words)
        self.after_cancel = after_cancel

    @property
    def said(self) -> Sayable:
        return Sayable(str(self))


class TrainerFailedError(TaskError):
    """The trainer answered that it could not do what was asked. `fatal`: asking again cannot help.

    `said` may leave the site. `traceback` holds the whole text, for the log, where `reference` finds it.
    """

    def __init__(self, failed: p.Failed) -> None:
        super().__init__(failed.error)
        self.said = sayable(failed.error)
        self.fatal = failed.fatal
        self.traceback = failed.traceback
        self.reference = failed.reference
