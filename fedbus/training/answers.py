"""What a task returned, read with care: counts, metrics, and what is left out of them.

A wrong count or a wrong kind of answer is a ContractError: the next training would end in the same way. A wrong metric
costs this metric only; why it is left out is a note for the site's own log, for notes quote names and values.
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedbus.errors import ContractError
from fedbus.training.cases import Cases, as_values
from fedbus.training.losses import Losses
from fedbus.training.sayable import type_name
from fedbus.training.task import TrainResult

MAX_METRICS = 64
MAX_NOTES = 64
MAX_COUNT = 1 << 53
DEEPEST = 3
TRAIN_EXPECTED = "a number of examples >= 1, or TrainResult(num_examples=..., metrics={...})"
EVALUATE_EXPECTED = "Scores(metrics={...}, num_examples=...)"
UNDECLARED = (
    "is left out: its words are neither in the task's code nor in the job, and a name that comes from data does not "
    "leave this site; if it holds nothing of the data, let the task's class declare it: metrics = (...,)"
)

MayLeave = Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """`values` are finite. `not_finite`: names of those that are not. `notes`: what was left out, and why."""

    values: Mapping[str, float]
    not_finite: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Notebook:
    """Keeps notes from being repeated: each is told once, MAX_NOTES in all."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def fresh(self, notes: Sequence[str]) -> tuple[str, ...]:
        """Return those that were not told before, and count them as told."""
        new = list(dict.fromkeys(note for note in notes if note not in self._told))[: MAX_NOTES - len(self._told)]
        self._told.update(new)
        return tuple(new)


def training_answer(returned: object, losses: Losses, may_leave: MayLeave = lambda name: True) -> tuple[int, Metrics]:
    """Return (num_examples, metrics) of what `train()` returned; the mean loss stands where no `loss` is given.

    Raises ContractError for what is no number of examples.
    """
    metrics: object = {}
    if isinstance(returned, TrainResult):
        count = _count(returned.num_examples, "train()", of=returned, at_least=1)
        metrics = returned.metrics
    else:
        count = _count(returned, "train()", at_least=1)
    own = {} if losses.mean is None else {"loss": losses.mean}
    if isinstance(metrics, Mapping):
        metrics = {**own, **metrics}
    return count, read_metrics(metrics, "train()", may_leave, otherwise=own)


def scoring_answer(returned: object, may_leave: MayLeave = lambda name: True) -> tuple[int, Metrics]:
    """Return (num_examples, metrics) of what `evaluate()` returned; ContractError for what is no Scores."""
    if not (hasattr(returned, "metrics") and hasattr(returned, "num_examples")):
        raise _wrong("evaluate()", returned, EVALUATE_EXPECTED)
    if not isinstance(returned.metrics, Mapping):
        raise _wrong("evaluate()", returned.metrics, "a mapping of names to numbers", of=returned, key="metrics")
    count = _count(returned.num_examples, "evaluate()", of=returned, at_least=0)
    return count, read_metrics(returned.metrics, "evaluate()", may_leave)


def cases_of(returned: Any, metrics: Metrics) -> Cases:
    """Return the values per test case behind `metrics`, of what `evaluate()` returned; none where it gives none.

    What stands for no metric that may leave is left out. Raises ContractError for values that are none.
    """
    raw, resample = getattr(returned, "cases", {}), getattr(returned, "resample", None)
    if not isinstance(raw, Mapping):
        raise _wrong("evaluate()", raw, "a mapping of names to a value per test case", of=returned, key="cases")
    if resample is not None and not callable(resample):
        raise _wrong("evaluate()", resample, "a function of the rows that were drawn", of=returned, key="resample")
    values = {name: as_values(name, of_cases) for name, of_cases in raw.items() if name in metrics.values}
    counts = {len(found) for found in values.values()} or {int(returned.num_examples)}
    if len(counts) > 1:
        raise _wrong("evaluate()", sorted(counts), "as many values of each metric", of=returned, key="cases")
    return Cases(count=counts.pop(), values=values, resample=resample)


def read_metrics(
    raw: object, where: str, may_leave: MayLeave = lambda name: True, *, otherwise: Mapping[str, float] | None = None
) -> Metrics:
    """Read metrics: everything that is a number, and lists and mappings of numbers as name/0, name/1 or name/key.

    Metrics of no use are left out with a note; when `raw` is no mapping, `otherwise` stands for it.
    """
    if not isinstance(raw, Mapping):
        note = f"{where} gave {_shown(raw)} as metrics: expected a mapping of names to numbers"
        return Metrics(values=dict(otherwise or {}), notes=(note,))
    values: dict[str, float] = {}
    not_finite: list[str] = []
    notes: list[str] = []
    for name, value in _flat(raw):
        number = _number(value)
        if len(values) + len(not_finite) >= MAX_METRICS or len(notes) >= MAX_NOTES:
            notes.append(f"{where} gave more than {MAX_METRICS} metrics: the others are left out")
            break
        if number is None:
            notes.append(f"{where}: metric {name} is left out: expected a number, got {_shown(value)}")
        elif not may_leave(name):
            notes.append(f"{where}: metric {_shown(name)} {UNDECLARED}")
        elif math.isfinite(number):
            values[name] = number
        else:
            not_finite.append(name)
            notes.append(f"{where}: metric {name} is not finite and is left out")
    return Metrics(values=values, not_finite=tuple(not_finite), notes=tuple(notes))


def _flat(metrics: Mapping[Any, object], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, object]]:
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        parts = _parts(value) if depth < DEEPEST else None
        if parts is None:
            yield name, value
        else:
            yield from _flat(parts, f"{name}/", depth + 1)


def _parts(value: object) -> Mapping[Any, object] | None:
    """The single values of a mapping, list, array or tensor; None for what is one value, or far too many."""
    if isinstance(value, Mapping):
        return value
    dimensions, size = getattr(value, "ndim", 0), getattr(value, "shape", (0,))
    if isinstance(dimensions, int) and dimensions > 0 and math.prod(size) <= MAX_METRICS and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) <= MAX_METRICS:
        return dict(enumerate(value))
    return None


def _number(value: Any) -> float | None:
    if value is None or isinstance(value, str | bytes | complex):
        return None
    try:
        return float(value)
    except Exception:  # noqa: BLE001 - whatever stands there is no number
        return None


def _count(value: Any, where: str, *, at_least: int, of: object = None) -> int:
    """A number of examples: everything that Python takes for an index, tensors and arrays of one integer too."""
    expected = f"a number of examples >= {at_least}" if of is not None else TRAIN_EXPECTED
    truth = isinstance(value, bool) or getattr(value, "dtype", None) is torch.bool
    try:
        count = None if truth else operator.index(value)
    except Exception:  # noqa: BLE001 - whatever stands there is no number
        count = None
    if count is None or not at_least <= count <= MAX_COUNT:
        raise _wrong(where, value, expected, of=of, key="num_examples")
    return count


def _wrong(where: str, value: object, expected: str, *, of: object = None, key: str = "") -> ContractError:
    """The error for a wrong answer; outside the site it says of which kind the value was, not which value."""
    if of is None:
        text, said = (f"{where} returned {words}: expected {expected}" for words in (_shown(value), _described(value)))
    else:
        source = f"{where} returned a wrong {type_name(type(of))}.{key}: expected {expected}"
        text, said = (f"{source}, got {words}" for words in (_shown(value), _described(value)))
    return ContractError(text, said=said)


def _shown(value: object) -> str:
    try:
        return f"{reprlib.repr(value)[:200]} (type {type(value).__name__})"
    except Exception:  # noqa: BLE001 - an object that cannot be shown
        return _described(value)


def _described(value: object) -> str:
    """A value in words that hold nothing of the data: small numbers as they are, of the rest the type."""
    if value is None or (isinstance(value, bool | int) and abs(value) < 10):
        return str(value)
    if isinstance(value, tuple | list | dict):
        return f"a {type_name(type(value))} of {len(value)}"
    return f"a value of type {type_name(type(value))}"
