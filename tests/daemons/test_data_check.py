"""A data check on a real broker: sites say statistics of their data, the report names the suspects; a training too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedbus.tasks.heart_disease_data import FILE_NAME, write_site_data

SITES = ("cleveland", "hungary", "switzerland")
TASK = {"task": "heart_disease", "task_config": {}}
LOCAL = {"steps": 4, "batch_size": 32, "learning_rate": 0.05}


def data_of(house: Any, hospital: str, change: Callable[[dict[str, str]], None] | None = None, name: str = "") -> Path:
    """A hospital's patients, each row changed."""
    folder: Path = house.folder / "data" / (name or hospital)
    write_site_data(folder, hospital)
    if change is not None:
        header, *lines = (folder / FILE_NAME).read_text().splitlines()
        rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
        for row in rows:
            change(row)
        (folder / FILE_NAME).write_text("\n".join([header, *(",".join(row.values()) for row in rows)]) + "\n")
    return folder


def from_1_on(row: dict[str, str]) -> None:
    row["num"] = str(int(row["num"]) + 1)


def without_cholesterol(row: dict[str, str]) -> None:
    row["chol"] = "0"


def checks(house: Any, **keys: Any) -> str:
    spec = {"kind": "data-check", "name": "look", "min_sites": 3, **TASK} | keys
    path = house.folder / "check.yaml"
    path.write_text(json.dumps(spec))
    return str(house.fedbus("submit", str(path)).out.strip())


def found_in(report: dict[str, Any]) -> set[tuple[str, str, tuple[str, ...]]]:
    return {(one["kind"], one["severity"], tuple(one["sites"])) for one in report["findings"]}


def test_the_report_names_the_suspects_and_the_aggregator_may_be_killed_meanwhile(house: Any) -> None:
    # given labels that begin at 1 at one hospital and cholesterol of 0 at another; the third is slow to answer
    house.start_aggregator()
    slow = house.start_site("cleveland", data=data_of(house, "cleveland"))
    house.start_site("hungary", data=data_of(house, "hungary", from_1_on))
    house.start_site("switzerland", data=data_of(house, "switzerland", without_cholesterol))
    job = checks(house)
    house.aggregator.wait_for("job-running", job=job)
    slow.freeze()
    house.aggregator.wait_for("data-said", job=job, site="hungary")
    # when the aggregator is killed and another one goes on
    house.kill(house.aggregator)
    house.start_aggregator()
    slow.thaw()
    house.ended(job)
    # then nobody who had answered was asked again, and each suspect is named
    again = [event for event in house.aggregator.events() if event["event"] == "data-said"]
    assert "hungary" not in [event["site"] for event in again]
    report = house.job(job)["result"]["check"]
    assert sorted(report["sites"]) == sorted(SITES)
    assert report["cannot"] == {}
    found = found_in(report)
    assert ("one-based-labels", "warning", ("hungary",)) in found
    assert ("never-measured", "warning", ("switzerland",)) in found
    assert not [one for one in found if one[1] == "fault"]
    # and nothing of few patients has left, nor a print that is kept in the result
    said = json.dumps(report)
    assert '"prints": []' in said
    assert all(count not in said for count in ('"missing": 1,', '"missing": 2,', '"missing": 3,', '"missing": 4,'))
    # and people read it
    assert "switzerland never measured chol: it is 0 in every row" in house.fedbus("show", job).out


def test_a_training_that_asks_for_a_check_leaves_out_who_is_at_fault_until_that_is_mended(house: Any) -> None:
    # given a site whose labels go from 1 to 5, which its own task would refuse to open, and one that refuses by itself
    house.start_aggregator()
    house.start_site("cleveland", data=data_of(house, "cleveland"))
    bad = house.start_site("hungary", data=data_of(house, "cleveland", from_1_on, name="hungary"))
    house.start_site("switzerland", data=data_of(house, "switzerland"), refuse_on="never-measured")
    # when a training asks for a check
    job = house.submit(**TASK, local=LOCAL, check="required", sites=list(SITES), stop={"wall_time_s": 600})
    left_out = house.aggregator.wait_for("site-declined", job=job, site="hungary")
    assert "labels of hungary begin at 1" in left_out["text"]
    refused = house.aggregator.wait_for("site-declined", job=job, site="switzerland")
    assert "refuses to train on its own data: never-measured" in refused["text"]
    house.committed(2)
    assert {fact.update_id.site for fact in house.folded(job)} == {"cleveland"}
    # and the site's data are mended and it is started anew
    house.terminate(bad)
    house.start_site("hungary", data=data_of(house, "cleveland", name="hungary"))
    # then it takes part
    house.aggregator.wait_for("update-folded", job=job, site="hungary")
    house.fedbus("abort", job)
    house.ended(job, state="aborted")
    assert sorted(house.job(job)["result"]["check"]["sites"]) == sorted(SITES)


def test_a_task_that_has_no_statistics_cannot_say_and_no_job_fails_for_it(house: Any) -> None:
    house.start_aggregator()
    house.start_site("cleveland")
    job = house.submit(check="required")
    house.ended(job)
    assert house.job(job)["result"]["check"]["cannot"] == {"cleveland": "its task has no statistics to give"}
