"""fedbus: asynchronous federated learning over RabbitMQ."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["connect", "connect_async"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def connect(url: str | None = None, **settings: Any) -> Any:
    """Connect as submitter, from a notebook or a script: see `fedbus.notebook.connect`, which this loads."""
    return _notebook().connect(url, **settings)


def connect_async(url: str | None = None, **settings: Any) -> Any:
    """The same for `async with`: see `fedbus.notebook.connect_async`."""
    return _notebook().connect_async(url, **settings)


def _notebook() -> Any:
    import importlib  # by name: this package is below all of its rooms

    return importlib.import_module("fedbus.notebook")
