"""One error tree: whatever fedbus raises on purpose is drawn in `errors`, below its parent."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import fedbus
from fedbus import errors
from fedbus.errors import FedbusError

NOT_IN_A_WHEEL = "fedbus.bench"


def drawn() -> dict[str, str]:
    """Parent by error, as the docstring draws it."""
    parents: dict[str, str] = {}
    above = ["FedbusError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│ ]*)[├└]── (\w+)", line):
            depth = len(found[1]) // 4
            above[depth + 1 :] = [found[2]]
            parents[found[2]] = above[depth]
    return parents


def defined(kind: type[Exception] = FedbusError) -> Iterator[type[Exception]]:
    for child in kind.__subclasses__():
        if child.__module__.startswith("fedbus.") and not child.__module__.startswith(NOT_IN_A_WHEEL):
            yield child
            yield from defined(child)


def test_every_error_stands_in_the_tree_below_its_parent() -> None:
    for module in pkgutil.walk_packages(fedbus.__path__, "fedbus."):
        if not module.name.startswith(NOT_IN_A_WHEEL) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {error.__name__: error.__base__.__name__ for error in defined() if error.__base__} == drawn()


def test_no_two_errors_share_a_name() -> None:
    names = [error.__name__ for error in defined()]
    assert len(names) == len(set(names))
