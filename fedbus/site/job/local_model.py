"""The newest local model of a job, for the other sites to score at its end: kept only where the site shares it.

A daemon that is started anew has none before its next training.
"""

from __future__ import annotations

from pathlib import Path

from fedbus.training import protocol as p

NAME, NEW = "local.frames", "local-new.frames"


class LocalModel:
    """Frames of a whole model, in `folder`; None: nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.newest: p.Trained | None = None
        """The training that made it; None: there is none."""

    @property
    def next_path(self) -> str:
        """Where the next training writes its model; empty: nowhere."""
        return "" if self._folder is None else str(self._folder / NEW)

    def written(self, trained: p.Trained) -> None:
        """A training has ended well: its model is the newest."""
        if self._folder is not None and trained.local_sizes:
            (self._folder / NEW).replace(self._folder / NAME)
            self.newest = trained

    def move_to(self, path: Path) -> None:
        """It leaves, as the frames of an update at `path`: it is here no more."""
        if self._folder is not None:
            (self._folder / NAME).replace(path)
        self.newest = None
