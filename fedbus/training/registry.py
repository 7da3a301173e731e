"""Which tasks are installed: the entry point group `fedbus.tasks`, name to class.

The site daemon lists names without importing a task, and so without torch; only a trainer imports one. A job can name
nothing else, so nothing that arrives on the bus chooses what code runs.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fedbus.errors import TaskError

GROUP = "fedbus.tasks"
PARTS = ("model", "train", "evaluate")


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def task_names() -> tuple[str, ...]:
    """Return the names of the installed tasks, sorted; nothing is imported."""
    return tuple(sorted(_installed()))


def load_task(name: str) -> Any:
    """Import the task `name` and return its class (see `fedbus.training.task.Task`).

    Raises TaskError when it is not installed, cannot be imported, or is no task.
    """
    installed = _installed()
    if name not in installed:
        names = ", ".join(sorted(installed)) or "none"
        raise TaskError(f"task {name!r} is not installed here; installed tasks: {names}")
    try:
        cls = installed[name].load()
    except (ImportError, AttributeError) as exc:
        raise TaskError(f"task {name!r} ({installed[name].value}) cannot be imported: {exc}") from exc
    lacking = [part for part in PARTS if not callable(getattr(cls, part, None))]
    if not callable(cls) or lacking:
        raise TaskError(f"task {name!r} ({installed[name].value}) is no task: it lacks {', '.join(lacking)}()")
    return cls
