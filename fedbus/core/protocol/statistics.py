"""What a site says of its data in a data check: aggregates only.

    count      an integer; one below the plan's minimum is withheld (None), 0 is not. Each other is rounded to the
               nearest multiple of the minimum, so that no withheld one can be had by subtraction
    distribution   how many values a quantity has, and quantiles of them; one that fewer values than the minimum lie
               beyond is withheld, and those that are said have three significant digits
    print      of an example: HMAC-SHA256 of its values under the job's salt, cut to 64 bits. Equal examples of two
               sites have equal prints; nobody gets the values back from one. But whoever has the salt (the aggregator,
               every site of the job) and the very values can find out that they are there: a print hides an example
               only from those who do not have it. A plan, or a site, may leave prints out

Names are those of columns, which stand in the task's code, and of a few fixed words: never of files or patients.
`withheld` is applied by the trainer process to whatever a task returns, `checked` to whatever comes from the bus.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar, cast

T = TypeVar("T")

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SURE = 3.0
"""Standard errors."""
LEAST = 5
MOST_LOSS = 5.0
"""As for a label with a probability below .7 %."""
MOST_PRINTS = 4096
MOST_COLUMNS = 256
MOST_VALUES = 64
"""Of label values, dtypes, shapes and the like, each."""
MOST_BINS = 64
MOST_NAME = 64
MOST_COUNT = 1 << 53
AXES = ("left-right", "back-front", "down-up")
OTHER = "other"
PROBLEM_KINDS = frozenset(
    {
        "no-label",
        "no-image",
        "duplicate",
        "several-modalities",
        "macos-file",
        "bad-name",
        "outside",
        "bad-listing",
        "unreadable",
        "truncated",
        "too-large",
        "not-3d",
        "not-numbers",
        "bad-geometry",
        "missing-slice",
        "duplicate-slice",
        "several-series",
        "compressed",
        "shape-mismatch",
        "affine-mismatch",
        "label-values",
        "no-studies",
        "no-table",
        "malformed-rows",
    }
)
"""Words for what keeps a study, or a row, from being used, that tasks of fedbus say."""
_PRINT = re.compile(r"[0-9a-f]{16}")

Count = int | None
Counts = Mapping[str, Count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What every site of a job computes. salt: hexadecimal digits, empty: no prints. bins: of a column's histogram."""

    salt: str = ""
    minimum: int = LEAST
    bins: int = 10

    def __post_init__(self) -> None:
        if self.minimum < 1 or not 1 <= self.bins <= MOST_BINS or not re.fullmatch(r"([0-9a-f]{2}){0,64}", self.salt):
            raise ValueError(f"expected minimum >= 1, 1 to {MOST_BINS} bins and a hexadecimal salt, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Of one quantity over examples: `quantiles` at QUANTILES, None where withheld."""

    count: Count = 0
    quantiles: tuple[float | None, ...] = (None,) * len(QUANTILES)

    @property
    def median(self) -> float | None:
        return self.quantiles[2]

    @property
    def about_median(self) -> tuple[float, float] | None:
        """Where the median of all such examples lies, almost surely, whatever their distribution; None: not known.

        The quantiles at 1/2 -+ SURE / (2 sqrt(count)) (order statistics, Conover 1999, 3.2), on a straight line between
        those that are said. Of few examples only the quartiles are: from 20 on that is 2.2 standard errors or more.
        """
        known = [(share, value) for share, value in zip(QUANTILES, self.quantiles, strict=True) if value is not None]
        away = SURE / (2 * math.sqrt(self.count)) if self.count else 1.0
        if len(known) < 3:
            return None
        return _between(known, max(0.5 - away, known[0][0])), _between(known, min(0.5 + away, known[-1][0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table. low, high: what is possible in it; None: any number.

    absent: the table has no such column. missing: empty cells, and those that hold a code for it, such as -9 or 0;
    coded: of these, by code. impossible: outside low to high, or no code of the column. levels: of a column of codes.
    histogram: of equal bins from low to high.
    """

    name: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    absent: bool = False
    missing: Count = 0
    coded: Counts = field(default_factory=dict)
    impossible: Count = 0
    values: Distribution = Distribution()
    levels: Counts = field(default_factory=dict)
    histogram: tuple[Count, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """How many examples have each label value; of masks: how many studies have it. expected: the job's classes."""

    counts: Counts = field(default_factory=dict)
    expected: tuple[int, ...] = ()
    of_masks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Volumes or pictures. size, spacing (mm): by axis. intensity: of each image its p1, p50, p99 as stored."""

    dtypes: Counts = field(default_factory=dict)
    orientations: Counts = field(default_factory=dict)
    shapes: Counts = field(default_factory=dict)
    size: tuple[Distribution, ...] = ()
    spacing: tuple[Distribution, ...] = ()
    intensity: Mapping[str, Distribution] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """One class in the masks: studies that have it, its volume in ml, its centre along AXES as a share of the image."""

    studies: Count = 0
    volume: Distribution = Distribution()
    centre: tuple[Distribution, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Masks of images. regions: by label value, background left out.

    fits: of each mask, along each of AXES, how much better it fits its image than its mirror image does: the share of
    the intensities' variance that the labels explain, less that of the flipped labels. Below 0: the flip fits better.
    """

    empty: Count = 0
    regions: Mapping[str, Region] = field(default_factory=dict)
    fits: tuple[Distribution, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Of one site's data. problems: of studies that cannot be used, by kind. copies: examples equal to an earlier one.

    prints: at most MOST_PRINTS of them, the smallest.
    """

    examples: Count = 0
    columns: tuple[Column, ...] = ()
    labels: Labels | None = None
    images: Images | None = None
    masks: Masks | None = None
    problems: Counts = field(default_factory=dict)
    copies: Count = 0
    prints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassLoss:
    """A model's loss on the examples that have one label, each cut at MOST_LOSS: its mean and variance."""

    examples: Count = 0
    mean: float | None = None
    variance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check has found. severity: fault, warning or notice. sites: whom it is about; all of equal suspicion.

    figure: the numbers behind it. advice: what to do.
    """

    kind: str
    severity: str
    sites: tuple[str, ...]
    text: str
    figure: str = ""
    advice: str = ""


def _between(known: Sequence[tuple[float, float]], share: float) -> float:
    """The quantile at a share, from those at other shares below and above it."""
    for (low, first), (high, second) in pairwise(known):
        if low <= share <= high:
            return first + (second - first) * (share - low) / (high - low)
    raise ValueError(f"expected a share from {known[0][0]} to {known[-1][0]}, got {share}")


def withheld(statistics: Statistics, plan: Plan) -> Statistics:
    """What may leave the site of statistics with exact counts."""
    prints = tuple(sorted(set(statistics.prints)))[:MOST_PRINTS] if plan.salt else ()
    images = statistics.images
    if images is not None:
        images = replace(images, shapes=_frequent(images.shapes, plan.minimum))
    return replace(_sealed(replace(statistics, images=images), plan.minimum), prints=prints)


def _frequent(shapes: Counts, minimum: int) -> Counts:
    """Shapes that enough images have; the rest in one, for a shape may tell one image from all others."""
    common = {word: count for word, count in shapes.items() if (count or 0) >= minimum and word != OTHER}
    rest = sum(count or 0 for word, count in shapes.items() if word not in common)
    return common | ({OTHER: rest} if rest else {})


def sealed_losses(losses: Mapping[str, ClassLoss], minimum: int) -> dict[str, ClassLoss]:
    """What may leave of losses with exact counts: of classes with enough examples, three significant digits."""
    return {
        word: ClassLoss(
            examples=rounded(loss.examples or 0, minimum), mean=_short(loss.mean), variance=_short(loss.variance)
        )
        for word, loss in list(losses.items())[:MOST_VALUES]
        if (loss.examples or 0) >= minimum
    }


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.3g}")


def rounded(count: int, minimum: int) -> Count:
    """A count as it leaves: 0, None for one below the minimum, else the nearest multiple of it."""
    if 0 < count < minimum:
        return None
    return minimum * ((count + minimum // 2) // minimum)


def _sealed(part: T, minimum: int) -> T:
    """The part with every count in it as it leaves."""
    if isinstance(part, Distribution):
        return cast("T", _sealed_distribution(part, minimum))
    exact = ("low", "high", "expected")  # of a column and of labels: what the task declares, no counts
    values = {f.name: getattr(part, f.name) for f in dataclasses.fields(cast("Any", part))}
    sealed = {name: value if name in exact else _of(value, minimum) for name, value in values.items()}
    return cast("T", cast("Any", type(part))(**sealed))


def _of(value: Any, minimum: int) -> Any:
    if isinstance(value, bool | str | float | None):
        return value
    if isinstance(value, int):
        return rounded(value, minimum)
    if isinstance(value, Mapping):
        return {key: _of(one, minimum) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_of(one, minimum) for one in value)
    return _sealed(value, minimum)


def _sealed_distribution(known: Distribution, minimum: int) -> Distribution:
    count = known.count or 0
    quantiles = (
        value if value is not None and math.isfinite(value) and count * min(share, 1 - share) >= minimum else None
        for share, value in zip(QUANTILES, known.quantiles, strict=True)
    )
    said = tuple(None if value is None else float(f"{value:.3g}") for value in quantiles)
    return Distribution(count=rounded(count, minimum), quantiles=said)


def checked(statistics: Statistics) -> Statistics:
    """The same, when it is within the bounds of this module. Raises ValueError that names what is not."""
    if len(statistics.prints) > MOST_PRINTS or not all(map(_PRINT.fullmatch, statistics.prints)):
        raise ValueError(f"expected at most {MOST_PRINTS} prints of 16 hexadecimal digits")
    if len(statistics.columns) > MOST_COLUMNS:
        raise ValueError(f"expected at most {MOST_COLUMNS} columns, got {len(statistics.columns)}")
    _check("statistics", dataclasses.replace(statistics, prints=(), columns=()))
    for column in statistics.columns:
        _check(f"column {column.name[:MOST_NAME]!r}", column)
    return statistics


def checked_losses(losses: Mapping[str, ClassLoss]) -> Mapping[str, ClassLoss]:
    """The same, when they are within the bounds of this module. Raises ValueError that names what is not."""
    _check("losses", dict(losses))
    if not all(0 <= (loss.mean or 0.0) <= MOST_LOSS and (loss.variance or 0.0) >= 0 for loss in losses.values()):
        raise ValueError(f"losses: expected means from 0 to {MOST_LOSS:g} and variances of at least 0")
    return losses


def _check(where: str, value: Any) -> None:
    if isinstance(value, str):
        if len(value) > MOST_NAME or not value.isprintable():
            raise ValueError(f"{where}: expected at most {MOST_NAME} printable characters")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: every number must be finite")
    elif isinstance(value, int):
        least = -MOST_COUNT if where.endswith((".expected", ".low", ".high")) else 0
        if not least <= value <= MOST_COUNT:
            raise ValueError(f"{where}: expected a count from 0 to {MOST_COUNT}, got {value}")
    elif isinstance(value, Mapping | tuple):
        if len(value) > MOST_VALUES:
            raise ValueError(f"{where}: expected at most {MOST_VALUES} values, got {len(value)}")
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in pairs:
            _check(where, key)
            _check(where, one)
    elif value is not None:
        if isinstance(value, Distribution) and len(value.quantiles) != len(QUANTILES):
            raise ValueError(f"{where}: expected {len(QUANTILES)} quantiles, got {len(value.quantiles)}")
        for part in dataclasses.fields(value):
            _check(f"{where}.{part.name}", getattr(value, part.name))
