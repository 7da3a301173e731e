"""What an update says of its making, in one piece from the trainer to the fact: a new number is a field here.

What lives here: the numbers and what a release before called them. What may not: what follows from them (see `rules`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The numbers of one training, as its site says them.

    num_examples: what it trained on. steps: local steps it took; 0: not said. seconds: how long they took. travel,
    response: the site's secant, see `tensors.secant`; travel 0: none. data_wait_s: of `seconds`, those in which a step
    waited for its examples. metrics: of the training, finite.
    """

    num_examples: int = 0
    steps: int = 0
    seconds: float = 0.0
    travel: float = 0.0
    response: float = 0.0
    data_wait_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


_FLAT = {
    "num_examples": "num_examples",
    "steps": "steps",
    "train_s": "seconds",
    "travel": "travel",
    "response": "response",
    "metrics": "metrics",
}
"""Keys of a manifest or fact of the release before, and the fields that they are now."""


def lifted(flat: Mapping[str, Any], *, stay: Collection[str] = ()) -> dict[str, Any]:
    """What a release before wrote of an update beside its other keys, with `effort` in one piece; else as it is.

    stay: keys that stand beside it as well.
    """
    if "effort" in flat:
        return dict(flat)
    effort = {new: flat[old] for old, new in _FLAT.items() if old in flat}
    return {key: value for key, value in flat.items() if key not in _FLAT or key in stay} | {"effort": effort}
