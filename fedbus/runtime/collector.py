"""Python's search for garbage in cycles, while a process starts.

What an import makes stays as long as the process, yet the collector looks through it again and again: a seventh of
what it costs to import torch. So a process starts with few searches. One that stays takes up the usual ones when its
imports are done, and then never looks through those again; a command ends before that would matter.
"""

from __future__ import annotations

import gc

USUAL = gc.get_threshold()
FEW = (20_000, 10, 10)


def search_rarely() -> None:
    """Search once in 20,000 new objects."""
    gc.set_threshold(*FEW)


def search_as_usual() -> None:
    """Search as Python does by itself, and leave out all that there is now."""
    gc.set_threshold(*USUAL)
    gc.freeze()
