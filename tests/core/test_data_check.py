"""What a data check finds in statistics that are written here: whom it names, and when it names nobody."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fedbus.core.check.compare import apart, apart_by, unit_of
from fedbus.core.check.doubles import in_common
from fedbus.core.check.losses import of_losses
from fedbus.core.check.report import faults, findings, refusals
from fedbus.core.protocol.statistics import (
    MOST_PRINTS,
    ClassLoss,
    Column,
    Distribution,
    Images,
    Labels,
    Masks,
    Region,
    Statistics,
)


def spread(value: float, count: int = 100) -> Distribution:
    return Distribution(count=count, quantiles=(value * 0.5, value * 0.8, value, value * 1.2, value * 1.5))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"a": 1.0, "b": 1.2, "c": 0.9}, None),
        ({"a": 1.0, "b": 1.2, "c": 1000.0}, ("c",)),
        ({"a": 1.0, "b": 1000.0}, ("a", "b")),
        ({"a": 1.0, "b": 100.0, "c": 10_000.0}, ("a", "b", "c")),
        ({"a": 1.0, "b": 1.0, "c": 100.0, "d": 100.0}, ("a", "b", "c", "d")),
        ({"a": 5.0}, None),
    ],
)
def test_a_site_is_named_only_when_the_others_agree(values: Mapping[str, float], named: tuple[str, ...] | None) -> None:
    found = apart(values, factor=8.0)
    assert (None if found is None else found.sites) == named


def test_a_distance_counts_where_a_factor_makes_no_sense() -> None:
    found = apart_by({"a": 0.4, "b": 0.42, "c": 0.61}, far=0.12)
    assert found is not None
    assert found.sites == ("c",)
    assert found.usual == pytest.approx(0.41)


def test_units_are_known_by_their_factor() -> None:
    assert [unit_of(ratio) for ratio in (1010.0, 0.001, 7.0)] == [1000.0, 0.001, None]


@pytest.mark.parametrize(
    ("counts", "expected", "kind", "severity"),
    [
        ({"1": 50, "2": 50, "3": 50}, (0, 1, 2), "one-based-labels", "fault"),
        ({"0": 50, "1": 50, "11": None}, (0, 1, 2), "label-out-of-range", "fault"),
        ({"0": 100, "1": 50}, (0, 1, 2), "missing-class", "warning"),
        ({"1": 100, "2": 50}, (0, 1, 2, 3), "one-based-labels", "warning"),
    ],
)
def test_labels_that_are_not_the_jobs_are_named(
    counts: Mapping[str, int | None], expected: tuple[int, ...], kind: str, severity: str
) -> None:
    good = Statistics(examples=150, labels=Labels(counts={str(v): 50 for v in expected}, expected=expected))
    bad = Statistics(examples=150, labels=Labels(counts=counts, expected=expected))
    found = [one for one in findings({"a": good, "b": bad, "c": good}) if one.severity != "notice"]
    assert [(one.kind, one.severity, one.sites) for one in found] == [(kind, severity, ("b",))]


def test_masks_whose_foreground_begins_at_2_are_one_based_beside_their_background() -> None:
    labels = Labels(counts={"0": 50, "2": 50, "3": 50}, expected=(0, 1, 2), of_masks=True)
    (found,) = findings({"a": Statistics(examples=50, labels=labels)})
    assert (found.kind, found.severity) == ("one-based-labels", "fault")


def organ_at(*quantiles: float, count: int = 25) -> Statistics:
    place = Distribution(count=count, quantiles=(None, *quantiles, None))
    region = Region(studies=count, centre=(place, spread(0.5, count), spread(0.5, count)))
    return Statistics(examples=count, masks=Masks(regions={"2": region}))


def test_an_organ_on_either_side_is_no_place_that_a_site_could_be_named_for() -> None:
    sites = {"a": organ_at(0.3, 0.72, 0.74), "b": organ_at(0.28, 0.65, 0.73), "c": organ_at(0.29, 0.52, 0.72)}
    assert findings(sites) == ()


def test_an_organ_that_lies_elsewhere_in_nearly_all_studies_is_said() -> None:
    sites = {"a": organ_at(0.70, 0.72, 0.74), "b": organ_at(0.69, 0.71, 0.73), "c": organ_at(0.27, 0.29, 0.31)}
    assert [(one.kind, one.sites) for one in findings(sites)] == [("class-place", ("c",))]


def test_where_a_median_lies_is_known_better_of_more_examples() -> None:
    few, many = (Distribution(count=n, quantiles=(0.0, 0.25, 0.5, 0.75, 1.0)) for n in (36, 10_000))
    assert few.about_median == pytest.approx((0.25, 0.75))
    assert many.about_median == pytest.approx((0.485, 0.515))
    assert Distribution(count=15, quantiles=(None, None, 0.5, None, None)).about_median is None


def test_alike_sites_have_nothing_found() -> None:
    images = Images(spacing=(spread(1.0),) * 3, intensity={"p99": spread(900.0)}, dtypes={"int16": 100})
    labels = Labels(counts={"0": 60, "1": 40}, expected=(0, 1))
    column = Column(name="age", missing=5, values=spread(54.0))
    same = Statistics(examples=100, labels=labels, images=images, columns=(column,))
    assert findings({"a": same, "b": same, "c": same}) == ()


def test_of_two_sites_that_differ_none_is_named_without_grounds_of_its_own() -> None:
    one, other = (Statistics(examples=100, images=Images(intensity={"p99": spread(v)})) for v in (1.0, 1000.0))
    (found,) = findings({"a": one, "b": other})
    assert (found.sites, found.severity) == (("a", "b"), "notice")


def test_spacing_that_no_scanner_has_is_a_fault_of_one_site_alone() -> None:
    images = Images(spacing=(spread(0.001),) * 3)
    assert list(faults(findings({"a": Statistics(examples=100, images=images)}))) == ["a"]


def test_equal_prints_of_two_sites_are_counted_and_few_are_not_told() -> None:
    prints = tuple(f"{number:016x}" for number in range(40))
    common = {"a": Statistics(examples=20, prints=prints[:20]), "b": Statistics(examples=20, prints=prints[10:30])}
    (found,) = findings(common)
    assert (found.kind, found.sites) == ("same-examples", ("a", "b"))
    assert found.figure.startswith("about 10 of")
    assert findings({**common, "b": Statistics(examples=20, prints=prints[16:36])}) == ()


def test_prints_of_which_only_the_smallest_were_sent_are_scaled_up() -> None:
    every = sorted(f"{(number * 0x9E3779B97F4A7C15) % (1 << 64):016x}" for number in range(20_000))
    sent = frozenset(every[:MOST_PRINTS])
    assert in_common(sent, sent, [max(sent)]) == pytest.approx(20_000, rel=0.05)


def losses(mean: float, n: int = 50) -> dict[str, ClassLoss]:
    return {str(label): ClassLoss(examples=n, mean=mean, variance=1.0) for label in range(4)}


def test_a_site_whose_labels_the_model_finds_unlikely_is_named() -> None:
    (found,) = of_losses({"a": losses(0.3), "b": losses(0.35), "c": losses(1.2)})
    assert (found.kind, found.sites) == ("unlikely-labels", ("c",))


def test_one_class_that_is_unlikely_is_named() -> None:
    bad = {**losses(0.3), "2": ClassLoss(examples=50, mean=2.0, variance=1.5)}
    (found,) = of_losses({"a": losses(0.3), "b": bad, "c": losses(0.3)})
    assert (found.sites, "class 2" in found.text) == (("b",), True)


@pytest.mark.parametrize(
    "sites",
    [
        {"a": losses(0.3), "b": losses(1.2)},
        {"a": losses(0.3), "b": losses(1.2), "c": losses(1.1)},
        {"a": losses(0.3, n=6), "b": losses(0.3, n=6), "c": losses(0.7, n=6)},
    ],
)
def test_nobody_is_named_when_two_are_alike_or_few_are_there(sites: Mapping[str, dict[str, ClassLoss]]) -> None:
    assert list(of_losses(sites)) == []


def test_a_site_may_refuse_a_kind_or_all_that_is_as_bad() -> None:
    bad = Statistics(examples=100, columns=(Column(name="chol", missing=100), Column(name="age", absent=True)))
    found = findings({"a": bad})
    assert {one.kind for one in refusals(found, ["warning"])} == {"never-measured", "column-absent"}
    assert [one.kind for one in refusals(found, ["fault"])] == ["column-absent"]
    assert [one.kind for one in refusals(found, ["never-measured"])] == ["never-measured"]
    assert refusals(found, []) == []
