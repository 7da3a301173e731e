"""Which names of metrics may leave a site: those that the task's author or the job has written, none that data have.

A name is taken apart into words, and must be put together again from whole
    texts and identifiers of the task's own code (the modules of its class, of its bases and of its package)
    texts of the job's spec
    names that the class declares:  metrics = ("mse", "dice/left ventricle")
with at most MAX_DIGITS digits beside them. `dice/3` passes where the code says "dice"; a date of birth does not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from types import CodeType, ModuleType
from typing import Any

MAX_DIGITS = 2
MAX_NAME = 80
MAX_WORDS = 12
SHORTEST_TEXT, SHORTEST_IDENTIFIER = 2, 3  # single letters stand in any code, and are initials in data
OWN = ("loss",)
_WORDS = re.compile(r"[^\W\d_]+|[0-9]+")
_NAME = re.compile(r"(?:[^\W\d_]|[0-9]|[_ \-./:@%()\[\]+=,])+")

Fragment = tuple[str, ...]


class MetricNames:
    """The names that may leave, for one task and one job. `job_words` are the texts of the job's spec."""

    def __init__(self, task: type, job_words: Iterable[str] = ()) -> None:
        self._task = task
        self._written = frozenset(fragments([*OWN, *job_words, *_declared(task)]))
        self._known: frozenset[Fragment] = self._written
        self._modules: frozenset[str] = frozenset()

    def may_leave(self, name: str) -> bool:
        """Say whether a name may leave; code that was imported meanwhile counts."""
        if len(name) > MAX_NAME or not _NAME.fullmatch(name):
            return False
        return is_made_of(name, self._known) or (self._learnt_more() and is_made_of(name, self._known))

    def _learnt_more(self) -> bool:
        modules = {module.__name__: module for module in _own_modules(self._task)}
        if modules.keys() == self._modules:
            return False
        self._modules = frozenset(modules)
        self._known = self._written | frozenset(fragment for module in modules.values() for fragment in _of(module))
        return True


def is_made_of(name: str, known: Set[Fragment]) -> bool:
    """Say whether the words of a name are whole fragments in a row, but for MAX_DIGITS digits."""
    words = _words(name)
    fewest: list[float] = [0.0] + [float("inf")] * len(words)  # digits beside the fragments, up to each word
    for at, word in enumerate(words):
        if word.isdigit():
            fewest[at + 1] = min(fewest[at + 1], fewest[at] + len(word))
        for end in range(at + 1, min(at + MAX_WORDS, len(words)) + 1):
            if words[at:end] in known:
                fewest[end] = min(fewest[end], fewest[at])
    return bool(words) and fewest[-1] <= MAX_DIGITS and not all(word.isdigit() for word in words)


def fragments(texts: Iterable[str]) -> Iterator[Fragment]:
    """The words of each text, in lower case."""
    for text in texts:
        words = _words(text) if len(text) <= MAX_NAME else ()
        if 0 < len(words) <= MAX_WORDS:
            yield words


def texts_in(content: Any) -> Iterator[str]:
    """All texts in JSON-able content, keys too."""
    match content:
        case str():
            yield content
        case Mapping():
            for key, value in content.items():
                yield from texts_in(key)
                yield from texts_in(value)
        case Sequence():
            for value in content:
                yield from texts_in(value)


def _words(text: str) -> Fragment:
    return tuple(_WORDS.findall(text.lower()))


def _declared(task: type) -> list[str]:
    """What the class says, not the object: an object's attribute may come from data."""
    declared = getattr(task, "metrics", None)
    return [name for name in declared if isinstance(name, str)] if isinstance(declared, tuple | list) else []


def _own_modules(task: type) -> list[ModuleType]:
    names = {str(cls.__module__) for cls in type.mro(task)} - {"builtins", "typing", "abc"}
    package = task.__module__.partition(".")[0]
    package = "fedbus.tasks" if package == "fedbus" else package
    names |= {name for name in list(sys.modules) if name == package or name.startswith(f"{package}.")}
    return [module for name in sorted(names) if (module := sys.modules.get(name)) is not None]


def _of(module: ModuleType) -> Iterator[Fragment]:
    loader = getattr(module.__spec__, "loader", None)
    try:
        code = loader.get_code(module.__name__) if loader is not None else None
    except Exception:  # noqa: BLE001 - a loader of somebody else's; then the class may declare its names
        return
    if code is not None:
        yield from fragments(_written_in(code))


def _written_in(code: CodeType) -> Iterator[str]:
    for names in (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars):
        yield from (name for name in names if len(name) >= SHORTEST_IDENTIFIER)
    waiting: list[object] = list(code.co_consts)
    while waiting:
        match waiting.pop():
            case str() as text if len(text) >= SHORTEST_TEXT:
                yield text
            case tuple() | frozenset() as several:
                waiting += several
            case CodeType() as inner:
                yield from _written_in(inner)
