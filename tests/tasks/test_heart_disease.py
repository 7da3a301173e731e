from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from fedbus.errors import DataError, TaskError
from fedbus.tasks.heart_disease import HeartDisease, score, write_site_data
from fedbus.tasks.heart_disease_baselines import local_only, pooled
from fedbus.tasks.heart_disease_data import FILE_NAME, HOSPITALS, NUM_FEATURES, read_patients, split
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


@pytest.mark.parametrize("config", [{"hiden": 3}, {"hidden": -1}, {"hidden": "many"}, {"hidden": True}])
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
