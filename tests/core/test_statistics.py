"""What may leave of statistics: no count below the minimum, no value of few; and what is refused from the bus."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.statistics import (
    MOST_PRINTS,
    PROBLEM_KINDS,
    QUANTILES,
    ClassLoss,
    Column,
    Distribution,
    Images,
    Labels,
    Masks,
    Plan,
    Region,
    Statistics,
    checked,
    rounded,
    sealed_losses,
    withheld,
)
from fedbus.errors import DecodeError
from fedbus.imaging.problems import KINDS

COUNTS = st.integers(0, 10_000) | st.integers(0, 12)
FEW_COUNTS = st.dictionaries(st.sampled_from(["0", "1", "11", "-9"]), COUNTS, max_size=4)
SPREADS = st.builds(
    Distribution,
    count=COUNTS,
    quantiles=st.tuples(*[st.floats(-1e6, 1e6) | st.none() for _ in QUANTILES]),
)
COLUMNS = st.builds(
    Column,
    name=st.just("age"),
    low=st.just(18),
    high=st.just(110.0),
    missing=COUNTS,
    coded=FEW_COUNTS,
    impossible=COUNTS,
    values=SPREADS,
    levels=FEW_COUNTS,
    histogram=st.lists(COUNTS, max_size=10).map(tuple),
)
IMAGES = st.builds(
    Images,
    dtypes=st.dictionaries(st.just("uint8"), COUNTS),
    shapes=st.dictionaries(st.sampled_from(["3x4x5", "4x4x5", "other"]), COUNTS),
    size=st.tuples(SPREADS, SPREADS, SPREADS),
    intensity=st.dictionaries(st.just("p99"), SPREADS),
)
MASKS = st.builds(
    Masks,
    empty=COUNTS,
    regions=st.dictionaries(st.just("1"), st.builds(Region, studies=COUNTS, volume=SPREADS)),
    fits=st.tuples(SPREADS, SPREADS, SPREADS),
)
STATISTICS = st.builds(
    Statistics,
    examples=COUNTS,
    columns=st.lists(COLUMNS, max_size=2).map(tuple),
    labels=st.none() | st.builds(Labels, counts=FEW_COUNTS, expected=st.just((0, 1, 3))),
    images=st.none() | IMAGES,
    masks=st.none() | MASKS,
    problems=st.dictionaries(st.just("truncated"), COUNTS),
    copies=COUNTS,
)


def counts_in(part: Any) -> Iterator[int | None]:
    """Every count of statistics, wherever it stands."""
    if dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            if field.name not in ("low", "high", "expected"):
                yield from counts_in(getattr(part, field.name))
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from counts_in(value)
    elif isinstance(part, tuple):
        for value in part:
            yield from counts_in(value)
    elif isinstance(part, int) and not isinstance(part, bool):
        yield part


@given(statistics=STATISTICS, minimum=st.integers(1, 20))
def test_no_count_below_the_minimum_leaves_and_none_can_be_had_by_subtraction(
    statistics: Statistics, minimum: int
) -> None:
    sealed = withheld(statistics, Plan(minimum=minimum))
    assert all(count == 0 or (count or 0) >= minimum for count in counts_in(sealed))
    assert all((count or 0) % minimum == 0 for count in counts_in(sealed))
    assert checked(sealed) == sealed


@given(spread=SPREADS, minimum=st.integers(1, 20))
def test_a_quantile_leaves_only_when_enough_values_lie_beyond_it(spread: Distribution, minimum: int) -> None:
    sealed = withheld(Statistics(columns=(Column(name="age", values=spread),)), Plan(minimum=minimum))
    for share, value in zip(QUANTILES, sealed.columns[0].values.quantiles, strict=True):
        assert value is None or (spread.count or 0) * min(share, 1 - share) >= minimum


@pytest.mark.parametrize(("count", "leaves"), [(0, 0), (1, None), (4, None), (5, 5), (7, 5), (8, 10), (123, 125)])
def test_counts_are_rounded_to_multiples_of_the_minimum(count: int, leaves: int | None) -> None:
    assert rounded(count, 5) == leaves


def test_shapes_that_few_images_have_are_told_together() -> None:
    images = Images(shapes={"3x4x5": 8, "4x4x5": 3, "5x4x5": 2})
    sealed = withheld(Statistics(images=images), Plan())
    assert sealed.images is not None
    assert sealed.images.shapes == {"3x4x5": 10, "other": 5}


def test_prints_leave_only_under_a_salt() -> None:
    statistics = Statistics(prints=("ff" * 8, "00" * 8))
    assert withheld(statistics, Plan()).prints == ()
    assert withheld(statistics, Plan(salt="ab")).prints == ("00" * 8, "ff" * 8)


def test_losses_of_classes_with_few_examples_do_not_leave() -> None:
    losses = {"0": ClassLoss(examples=52, mean=0.123456, variance=0.5), "1": ClassLoss(examples=4, mean=1.0)}
    assert sealed_losses(losses, 5) == {"0": ClassLoss(examples=50, mean=0.123, variance=0.5)}


def test_every_word_for_a_problem_with_studies_may_leave() -> None:
    assert KINDS.keys() | {"no-table", "malformed-rows"} == PROBLEM_KINDS


@pytest.mark.parametrize(
    ("statistics", "problem"),
    [
        (Statistics(prints=("0" * 16,) * (MOST_PRINTS + 1)), "at most 4096 prints"),
        (Statistics(prints=("name of a patient",)), "16 hexadecimal digits"),
        (Statistics(columns=(Column(name="x"),) * 257), "at most 256 columns"),
        (Statistics(columns=(Column(name="x" * 65),)), "at most 64 printable characters"),
        (Statistics(problems={"\x1b[2J": 5}), "printable"),
        (Statistics(labels=Labels(counts={str(n): 5 for n in range(65)})), "at most 64 values"),
        (Statistics(examples=-1), "expected a count"),
        (Statistics(columns=(Column(name="x", values=Distribution(quantiles=(1.0,))),)), "5 quantiles"),
    ],
)
def test_what_is_out_of_bounds_is_refused_where_it_is_read(statistics: Statistics, problem: str) -> None:
    answer = m.StatisticsAnswer(site="mercy", job="heart", asked="0a", statistics=statistics)
    encoded = wire.encode(answer)
    with pytest.raises(DecodeError, match=problem):
        wire.decode(encoded.type, encoded.headers, encoded.body)


def test_an_answer_comes_back_as_it_was() -> None:
    statistics = Statistics(examples=20, masks=Masks(empty=None, fits=(Distribution(count=20),) * 3))
    answer = m.StatisticsAnswer(site="mercy", job="heart", asked="0a", statistics=statistics)
    encoded = wire.encode(answer)
    assert wire.decode(encoded.type, encoded.headers, encoded.body) == answer
