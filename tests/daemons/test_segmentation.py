"""Three hospitals outline organs together, with real daemons; and what is said of studies that cannot be read."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedbus.imaging.hippocampus import SITES, write_hippocampus
from fedbus.imaging.kidneys import write_kidneys

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "msd-task04-hippocampus.tgz"
LONG = timedelta(minutes=4)
MOST_WAIT = 0.05


def shipped(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "jobs" / f"{name}.yaml").read_text())
    return found


def dice_of(house: Any, spec: dict[str, Any], folders: dict[str, Path]) -> tuple[float, dict[str, Any]]:
    """Run a job; mean Dice over the studies of all sites, and what the job left."""
    house.start_aggregator()
    for site, data in folders.items():
        house.start_site(site, data=data)
    job = house.submit(**spec)
    house.aggregator.wait_for("job-ended", within=LONG, job=job, state="finished")
    result = house.job(job)["result"]
    scores = result["scores"].values()
    studies = sum(score["num_examples"] for score in scores)
    return sum(score["metrics"]["dice"] * score["num_examples"] for score in scores) / studies, result


def test_the_shipped_job_finds_kidneys_and_tumours_at_three_sites(house: Any, tmp_path: Path) -> None:
    write_kidneys(tmp_path)
    sites = {site: tmp_path / site for site in ("site-a", "site-b", "site-c")}

    dice, result = dice_of(house, shipped("kidneys"), sites)

    assert dice >= 0.85
    assert all({"dice/kidney", "dice/tumour"} <= set(score["metrics"]) for score in result["scores"].values())
    assert all(0 < numbers["data_wait"] <= MOST_WAIT for numbers in result["sites"].values())
    shown = house.fedbus("show", next(iter(house.ask(lambda client: client.jobs()))).job, COLUMNS="160").out
    assert "share of training that waited for data: site-a " in shown


@pytest.mark.skipif(not ARCHIVE.exists(), reason="the Decathlon's hippocampi are not beside this checkout")
def test_the_short_job_outlines_the_hippocampi_of_three_scanners(house: Any, tmp_path: Path) -> None:
    counts = write_hippocampus(ARCHIVE, tmp_path)
    assert counts == {"low": 172, "uint8": 55, "high": 33}
    names = ("site-a", "site-b", "site-c")

    dice, _ = dice_of(
        house, shipped("hippocampus-short"), {name: tmp_path / own for name, own in zip(names, SITES, strict=True)}
    )

    assert dice >= 0.73


def test_studies_that_cannot_be_read_are_named_at_home_and_counted_elsewhere(house: Any, tmp_path: Path) -> None:
    for study in ("Mustermann_Erika", "Doe_Jane"):
        for part in ("images", "labels"):
            (tmp_path / "data" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / part / f"{study}.nii.gz").write_bytes(b"\x1f\x8b cut")
    house.start_aggregator()
    site = house.start_site("site-a", data=tmp_path / "data")

    job = house.submit(**shipped("kidneys") | {"min_sites": 1})
    trouble = house.aggregator.wait_for("trainer-trouble", within=LONG, job=job)

    text = "expected at least 2 studies with labels, 0 can be used; found: "
    assert text in trouble["text"]
    assert "Mustermann" in site.log.read_text()
    assert "Mustermann" not in house.aggregator.log.read_text() + house.fedbus("show", job).out
