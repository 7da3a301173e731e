"""What looks like data and is none: counted, said, refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from fedbus.errors import DataError
from fedbus.tasks.plausible import Checked, Codes, Numbers, check, check_images

CHOL = Numbers(
    name="chol", unit="mg/dL", low=60, high=700, missing=(-9.0, 0.0), other_units={"mmol/L": 38.67}, spread=60
)
SEX = Codes(name="sex", codes={0: "female", 1: "male"}, missing=(-9.0,))
USUAL = [200.0, 180.0, 310.0, 250.0, 221.0, 199.0, 240.0, 263.0, 150.0, 270.0, 233.0, 288.0]


def chol(*values: float | None) -> Checked:
    return check(CHOL, [*USUAL, *values], where="patients.csv")


def test_usual_values_are_kept_and_summed_up_in_a_line() -> None:
    found = chol()

    assert found.values.tolist() == USUAL
    assert found.text == "chol: 12 values, 0 missing; from 150 to 310 mg/dL, median 236.5"
    assert found.level == logging.INFO


def test_codes_for_not_measured_are_missing_and_said() -> None:
    found = chol(-9, 0, None)

    assert np.isnan(found.values[-3:]).all()
    assert found.text.startswith("chol: 15 values, 3 missing (2 of them written as -9, 0);")
    assert found.level == logging.INFO


def test_single_values_out_of_range_are_missing_counted_and_warned_of() -> None:
    found = chol(9999, 9999, -1)

    assert np.isnan(found.values[-3:]).all()
    assert "chol: 15 values, 0 missing, 3 outside 60 to 700 mg/dL (-1, 9999): treated as missing" in found.text
    assert found.level == logging.WARNING


def test_the_ends_of_the_range_are_plausible() -> None:
    assert chol(60, 700).values[-2:].tolist() == [60.0, 700.0]


def test_the_callers_values_stay_as_they_are() -> None:
    values = np.array([*USUAL, -9.0, 9999.0])
    before = values.copy()

    check(CHOL, values, where="patients.csv")

    assert np.array_equal(values, before)


@pytest.mark.parametrize("rows", [1, 3, 300])
def test_a_column_in_another_unit_is_refused_with_the_unit_it_may_be_in(rows: int) -> None:
    with pytest.raises(DataError) as found:
        check(CHOL, [5.8] * rows, where="patients.csv")

    assert f"column chol: expected values of 60 to 700 mg/dL, {rows} of {rows} lie outside" in str(found.value)


def test_the_unit_it_may_be_in_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"median is 6: mmol/L\? \(mmol/L times 38.67 are mg/dL\); convert the column"):
        check(CHOL, [5.0, 6.0, 7.0], where="patients.csv")


def test_a_part_in_another_unit_is_refused_when_it_is_no_slip() -> None:
    with pytest.raises(DataError, match=r"60 of 300 lie outside.*mmol/L"):
        check(CHOL, [*USUAL * 20, *np.linspace(4, 8, 60)], where="patients.csv")


def test_one_value_again_and_again_may_be_a_code_for_not_measured() -> None:
    with pytest.raises(DataError, match="all of them are 9999: if that means not measured, leave these cells empty"):
        check(CHOL, [*USUAL, *[9999.0] * 10], where="patients.csv")


def test_a_column_that_was_never_measured_is_no_fault() -> None:
    found = check(CHOL, [None, -9.0, None], where="patients.csv")

    assert np.isnan(found.values).all()
    assert found.text == "chol: 3 values, 3 missing (1 of them written as -9, 0)"


def test_a_column_that_hardly_varies_is_warned_of() -> None:
    found = check(CHOL, [200.0] * 12, where="patients.csv")

    assert "hardly varies" in found.text
    assert found.level == logging.WARNING


def test_categories_are_counted_by_code() -> None:
    found = check(SEX, [1, 1, 0, None, -9], where="patients.csv")

    assert found.text == "sex: 5 values, 2 missing (1 of them written as -9); 0: 1, 1: 2"


def test_a_category_that_is_none_is_refused_with_its_line_and_the_codes() -> None:
    with pytest.raises(DataError) as found:
        check(SEX, [0, 3, 1], where="patients.csv", lines=[2, 4, 5])

    assert str(found.value) == "patients.csv line 4: expected one of [0, 1] in column sex, got 3: 0 female, 1 male"


def test_codes_that_begin_at_one_are_seen() -> None:
    with pytest.raises(DataError, match=r"do the codes begin at 1 in this file\? Then subtract 1"):
        check(SEX, [1, 2, 2, 1], where="patients.csv")


IMAGES = np.linspace(0, 16, 4 * 9).reshape(4, 3, 3)
LABELS = np.array([0, 1, 2, 1])


def images(pixels: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> tuple[str, ...]:
    return check_images(pixels, labels, brightest=16, classes=3, where="scans")


def test_usual_images_are_not_remarked_on() -> None:
    assert images() == ()


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (IMAGES / 16, LABELS, "scans: expected pixels from 0 to 16, the brightest of 4 images is 1: were they scaled"),
        (IMAGES * 16, LABELS, "scans: expected pixels from 0 to 16, got 0 to 256: another scale"),
        (IMAGES - 8, LABELS, "got -8 to 8"),
        (np.where(IMAGES > 15, np.nan, IMAGES), LABELS, "expected finite pixels, got NaN or infinity in 1 images"),
        (IMAGES * 0 + 16, LABELS, "all pixels of 4 images are 16"),
        (IMAGES * 0, LABELS, "are they empty"),
        (IMAGES[:3], LABELS, "got 3 images, 4 labels"),
        (IMAGES[:0], LABELS[:0], "got 0 images, 0 labels"),
        (IMAGES, LABELS + 1, "expected labels from 0 to 2, got 1 to 3: do the labels begin at 1"),
        (IMAGES, LABELS - 1, "expected labels from 0 to 2, got -1 to 1"),
        (IMAGES, LABELS + 0.5, "expected labels from 0 to 2"),
    ],
)
def test_images_and_labels_that_cannot_be_right_are_refused(
    pixels: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        images(pixels, labels)


def test_labels_of_a_single_class_are_said() -> None:
    assert images(labels=LABELS * 0) == ("scans: all 4 labels are 0: nothing can be told apart",)
