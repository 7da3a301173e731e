from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from fedbus.errors import DataError, TaskError
from fedbus.tasks.heart_disease import HeartDisease, score, write_site_data
from fedbus.tasks.heart_disease_baselines import local_only, pooled
from fedbus.tasks.heart_disease_data import COLUMNS, FILE_NAME, HOSPITALS, NUM_FEATURES, read_patients, split
from fedbus.training.task import Site

HEADER = "hospital,age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,num"
ILL, WELL = "x,60,1,4,140,250,1,0,120,1,1.5,,,,2", "x,40,0,2,120,200,0,1,170,0,0,,,,0"


def site_of(folder: Path, **config: object) -> Site:
    return Site(name="site-a", data=folder, config=config, seed=0, device=torch.device("cpu"))


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    (folder / FILE_NAME).write_text("\n".join([header, *rows]) + "\n")
    return folder / FILE_NAME


def test_the_shipped_table_has_the_four_hospitals_of_uci(tmp_path: Path) -> None:
    assert {h: write_site_data(tmp_path / h, h) for h in HOSPITALS} == {
        "cleveland": 303,
        "hungary": 294,
        "switzerland": 123,
        "va-long-beach": 200,
    }


def test_the_shipped_table_has_no_zero_cholesterol_or_pressure() -> None:
    header, *rows = files("fedbus.tasks").joinpath("data", FILE_NAME).read_text().splitlines()
    cells = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]

    assert header == HEADER
    assert not [cell for cell in cells if cell["chol"] == "0" or cell["trestbps"] == "0"]
    assert not any(cell["chol"] for cell in cells if cell["hospital"] == "switzerland")


def test_the_licence_names_the_investigators() -> None:
    text = files("fedbus.tasks").joinpath("data", "LICENSE").read_text()

    assert all(
        name in text for name in ("Janosi", "Steinbrunn", "Pfisterer", "Detrano", "CC BY 4.0", "10.24432/C52P4X")
    )


@pytest.mark.parametrize(("hospital", "train", "test"), [("cleveland", 212, 91), ("switzerland", 87, 36)])
def test_the_split_is_stratified_and_always_the_same(hospital: str, train: int, test: int, tmp_path: Path) -> None:
    write_site_data(tmp_path, hospital)
    patients = read_patients(tmp_path / FILE_NAME)

    for_training, for_test = split(patients)

    assert (len(for_training.labels), len(for_test.labels)) == (train, test)
    assert sum(for_test.labels) / test == pytest.approx(sum(patients.labels) / len(patients.labels), abs=0.02)
    assert split(patients) == (for_training, for_test)


PREPARED = {
    "cleveland": "9b17a938e1aacd7f4b0a3103a89b27b84e4f9e57bf7245b0350fd993a3d7371f",
    "hungary": "69cdafcd5de3d533c4a6a54013fff10e49085dfd67ec8ee4d8711c71c34bcee7",
    "switzerland": "347fcd19cd4efd86895bdc89f1ac9e186cc9bfd6bc4ca7c59a9789f3ab2dd1b6",
    "va-long-beach": "c0badd999c4288c18aeaca8f8786ec36bea0dced089cd3b7198199164239e7f2",
}


@pytest.mark.parametrize("hospital", HOSPITALS)
def test_the_shipped_hospitals_are_prepared_to_the_same_numbers_as_ever(
    hospital: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_site_data(tmp_path, hospital)

    patients = read_patients(tmp_path / FILE_NAME)

    features = [[float(value) for value in row] for row in patients.features]
    content = repr(features) + repr([float(label) for label in patients.labels])
    assert hashlib.sha256(content.encode()).hexdigest() == PREPARED[hospital]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def cleveland(folder: Path, change: Callable[[dict[str, str], int], object] = lambda cells, row: None) -> Path:
    """Write Cleveland's patients, each with its cells and number (from 0) given to `change` before."""
    write_site_data(folder, "cleveland")
    path = folder / FILE_NAME
    header, *rows = path.read_text().splitlines()
    changed = []
    for number, row in enumerate(rows):
        cells = dict(zip(header.split(","), row.split(","), strict=True))
        change(cells, number)
        changed.append(",".join(cells.values()))
    return write(folder, *changed)


def lines(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(f"{record.levelname} {record.getMessage()}" for record in caplog.records)


@pytest.mark.parametrize("value", ["-9", "-9.0", "9999", "-1", "1e300", "0", "NULL"])
def test_a_number_nobody_can_have_counts_as_missing(value: str, tmp_path: Path) -> None:
    given = read_patients(cleveland(tmp_path, lambda cells, row: row < 5 and cells.update(chol=value)))
    empty = read_patients(cleveland(tmp_path, lambda cells, row: row < 5 and cells.update(chol="")))

    assert given == empty


def test_each_column_has_a_line_with_counts_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    values = {0: "-9", 1: "", 2: "9999", 3: "-1"}

    read_patients(cleveland(tmp_path, lambda cells, row: row in values and cells.update(chol=values[row])))

    told = lines(caplog)
    assert (
        "WARNING heart_disease.csv: chol: 303 values, 2 missing (1 of them written as -9, 0), "
        "2 outside 60 to 700 mg/dL (-1, 9999): treated as missing"
    ) in told
    assert "INFO heart_disease.csv: cp: 303 values, 0 missing; 1: 23, 2: 50, 3: 86, 4: 144" in told
    assert all(f"heart_disease.csv: {column}: 303 values" in told for column in COLUMNS)
    assert "columns that are not used: hospital, slope, ca, thal" in told


@pytest.mark.parametrize(
    ("column", "factor", "message"),
    [
        ("chol", 1 / 38.67, r"303 of 303 lie outside.*mmol/L\?.*convert the column to mg/dL"),
        ("age", 12, r"expected values of 18 to 110 years.*months\?"),
        ("age", 365.25, r"days\?"),
        ("trestbps", 0.13332, r"expected values of 50 to 300 mmHg.*kPa"),
        ("thalach", 1 / 60, r"beats per second\?"),
        ("oldpeak", 100, r"expected values of -5 to 10 mm.*µV\?"),
    ],
)
def test_a_column_in_another_unit_is_refused(column: str, factor: float, message: str, tmp_path: Path) -> None:
    path = cleveland(tmp_path, lambda cells, row: cells.update({column: f"{float(cells[column]) * factor:.2f}"}))

    with pytest.raises(DataError, match=message):
        read_patients(path)


def test_a_unit_in_which_every_value_is_plausible_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    millivolt = cleveland(tmp_path, lambda cells, row: cells.update(oldpeak=f"{float(cells['oldpeak']) / 10:.2f}"))

    read_patients(millivolt)

    assert "WARNING heart_disease.csv: oldpeak: 303 values, 0 missing; from 0 to 0.62 mm" in lines(caplog)
    assert "is it the right unit?" in lines(caplog)


@pytest.mark.parametrize(
    ("column", "code", "message"),
    [
        ("sex", "2", r"line 2: expected one of \[0, 1\] in column sex, got 2.*0 female, 1 male"),
        ("sex", "male", "line 2: expected a number or nothing in column sex, got 'male'.*categories by their codes"),
        ("num", "5", "line 2: expected one of .* in column num, got 5"),
        ("num", "-9", r"line 2: the diagnosis \(column num\) is missing"),
        ("cp", "1.5", "line 2: expected one of .* in column cp, got 1.5"),
    ],
)
def test_a_code_that_is_none_is_refused(column: str, code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_patients(cleveland(tmp_path, lambda cells, row: row < 5 and cells.update({column: code})))


def test_diagnoses_that_begin_at_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="164 times 1 and 139 times 2, never 0: do its codes begin at 1"):
        read_patients(cleveland(tmp_path, lambda cells, row: cells.update(num="1" if cells["num"] == "0" else "2")))
    with pytest.raises(DataError, match="do the codes begin at 1 in this file"):
        read_patients(cleveland(tmp_path, lambda cells, row: cells.update(num=str(int(cells["num"]) + 1))))


@pytest.mark.parametrize(("num", "who"), [("0", "healthy"), ("3", "ill")])
def test_patients_of_a_single_class_are_warned_of(
    num: str, who: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    patients = read_patients(cleveland(tmp_path, lambda cells, row: cells.update(num=num)))

    assert len(patients.labels) == 303
    assert f"WARNING heart_disease.csv: all 303 patients are {who}" in lines(caplog)


def test_rows_that_stand_twice_are_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = cleveland(tmp_path)
    rows = path.read_text().splitlines()

    write(tmp_path, *rows[1:], *rows[1:101])
    patients = read_patients(path)

    assert len(patients.labels) == 403
    assert "WARNING heart_disease.csv: 100 of 403 rows are copies of others" in lines(caplog)


def test_missing_numbers_become_the_median_of_the_site(tmp_path: Path) -> None:
    path = write(tmp_path, ILL, WELL, "x,50,1,1,?,0,,,,,,,,,0")

    features = read_patients(path).features[2]

    assert features[1] == pytest.approx((130 - 132) / 19)
    assert features[2] == pytest.approx((225 - 220) / 60)


def test_a_number_the_site_never_measured_becomes_the_reference(tmp_path: Path) -> None:
    path = write(tmp_path, "x,60,1,4,140,0,1,0,120,1,1.5,,,,2", "x,40,0,2,120,,0,1,170,0,0,,,,0")

    assert [row[2] for row in read_patients(path).features] == [0.0, 0.0]


def test_all_hospitals_have_the_same_columns(tmp_path: Path) -> None:
    for hospital in HOSPITALS:
        write_site_data(tmp_path, hospital)
        assert {len(row) for row in read_patients(tmp_path / FILE_NAME).features} == {NUM_FEATURES}


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], HEADER, "no patients"),
        ([ILL.replace("250", "high")], HEADER, "line 2: expected a number or nothing in column chol, got 'high'"),
        ([ILL, WELL.replace("x,40,0,2", "x,40,0,9")], HEADER, "line 3: expected one of [1, 2, 3, 4] in column cp"),
        ([ILL[:-1]], HEADER, "line 2: the diagnosis (column num) is missing"),
        ([ILL.replace("60", "inf")], HEADER, "expected a finite number in column age"),
        ([ILL], HEADER.replace("thalach", "heartrate"), "thalach not found"),
        ([ILL], HEADER, "expected enough patients"),
    ],
)
def test_bad_data_say_what_is_wrong_and_where(rows: list[str], header: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, *rows, header=header)

    with pytest.raises(DataError) as found:
        HeartDisease(site_of(tmp_path))

    assert message in str(found.value)


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"python -m fedbus\.tasks\.heart_disease --hospital"):
        HeartDisease(site_of(tmp_path))


def test_an_unknown_hospital_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got 'mercy'"):
        write_site_data(tmp_path, "mercy")


@pytest.mark.parametrize(
    "config", [{"hiden": 3}, {"hidden": -1}, {"hidden": 10**12}, {"hidden": "many"}, {"hidden": True}]
)
def test_a_wrong_task_config_is_refused(config: dict[str, object], tmp_path: Path) -> None:
    write_site_data(tmp_path, "cleveland")

    with pytest.raises(TaskError, match="task_config"):
        HeartDisease(site_of(tmp_path, **config))


def test_auc_is_left_out_when_all_test_patients_are_of_one_class() -> None:
    scores = score(torch.nn.Linear(2, 1), torch.zeros(3, 2), torch.ones(3))

    assert scores.metrics.keys() == {"loss", "accuracy"}


def test_data_are_written_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedbus.tasks.heart_disease", "--hospital", "cleveland", "--out", str(tmp_path)]

    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert said == f"wrote {tmp_path / FILE_NAME}: 303 patients of cleveland\n"
    assert len(read_patients(tmp_path / FILE_NAME).labels) == 303


def test_baselines_reach_the_known_quality() -> None:
    alone = local_only(steps=300, batch_size=16, learning_rate=0.1)
    together = pooled(steps=600, batch_size=16, learning_rate=0.1)

    assert list(alone) == list(together) == list(HOSPITALS)
    for hospital in ("cleveland", "hungary"):
        assert alone[hospital].metrics["auc"] > 0.85
        assert together[hospital].metrics["auc"] > 0.85
    assert together["va-long-beach"].metrics["auc"] > alone["va-long-beach"].metrics["auc"]
    assert [scores.num_examples for scores in together.values()] == [91, 88, 36, 60]
