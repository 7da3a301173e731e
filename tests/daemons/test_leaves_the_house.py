"""What is made of a job that has ended: an export with its card, and what each site has added to the model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedbus.store.provenance import Provenance
from fedbus.store.state_reader import StateReader

SITES = ("cleveland", "hungary")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, manned_house: Any) -> str:
    """A job of two sites whose aggregator keeps every update."""
    manned_house.terminate(manned_house.aggregator)
    manned_house.start_aggregator(keep_updates=1)
    for site in SITES:
        manned_house.start_site(site)
    local = {"steps": 4, "batch_size": 32, "learning_rate": 0.05}
    task = {"task": "heart_disease", "task_config": {"hidden": 4}}
    job = str(manned_house.submit(**task, local=local, min_sites=2, stop={"versions": 6}))
    manned_house.ended(job)
    return job


def test_an_export_has_the_job_s_numbers_in_its_card(manned_house: Any, trained: str, tmp_path: Any) -> None:
    to = tmp_path / "model"
    said = manned_house.fedbus("export", trained, "--format", "torchscript", "--to", str(to))
    assert said.code == 0, said.err
    assert "read back in a fresh process without fedbus" in said.out
    card, job = json.loads((to / "card.json").read_text()), manned_house.job(trained)
    assert card["version"] == job["result"]["best"]["version"]
    assert {site: row["updates"] for site, row in card["sites"].items()} == {
        site: row["updates"] for site, row in job["sites"].items()
    }
    # and who has the ledger computes the same hash
    with StateReader(manned_house.folder / "aggregator") as state:
        row = state.ledger.job(trained)
        assert row is not None
        assert card["provenance"]["sha256"] == Provenance(state.ledger).of(row).sha256


def test_show_says_how_much_each_site_counts(manned_house: Any, trained: str) -> None:
    sites = manned_house.job(trained)["sites"]
    assert sum(site["influence"] for site in sites.values()) == pytest.approx(1.0, abs=0.01)
    assert all(-1.0 <= site["cosine"] <= 1.0 for site in sites.values())
    assert "cosine to the versions" in manned_house.fedbus("show", trained, COLUMNS="100").out


def test_every_site_scores_the_model_without_each(manned_house: Any, trained: str) -> None:
    state = manned_house.folder / "aggregator"
    said = manned_house.fedbus("contribution", str(state), trained, "-o", "json")
    assert said.code == 0, said.err
    found = said.json
    assert [one["site"] for one in found["without"]] == list(SITES)
    for one in found["without"]:
        assert set(one["at_sites"]) == set(SITES)
        assert one["from_version"] == 0
        assert one["change"]["loss"] == pytest.approx(found["means"]["loss"] - one["means"]["loss"])
    assert not list((state / "params").iterdir())


def test_a_site_that_is_none_is_named(manned_house: Any, trained: str) -> None:
    said = manned_house.fedbus("contribution", str(manned_house.folder / "aggregator"), trained, "--site", "nobody")
    assert said.code == 1
    assert "has no updates of nobody; of: cleveland, hungary" in " ".join(said.err.split())
