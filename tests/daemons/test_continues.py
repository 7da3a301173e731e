"""A job that goes on from what another one has left: its best version, and what each site kept of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fedbus.local.federation import wait_until
from tests.waits import SOON

HEADS = {
    "task": "heart_disease",
    "task_config": {"hidden": 4},
    "keep": ["2.*"],
    "codec": {"up": "fp32", "down": "fp32"},
}
NEXT_TO_NOTHING = 1e-9
SITES = ("cleveland", "hungary")


def local(learning_rate: float) -> dict[str, Any]:
    return {"steps": 4, "batch_size": 32, "learning_rate": learning_rate}


def kept(house: Any, site: str, job: str) -> Path:
    return Path(house.folder / "sites" / site / "kept" / f"{job}.safetensors")


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_it_begins_with_the_best_version_and_outlives_the_old_job_and_its_aggregator(house: Any) -> None:
    # given a job that has ended, where each site has a head of its own
    house.start_aggregator()
    for site in SITES:
        house.start_site(site)
    old = house.submit(**HEADS, local=local(0.1), min_sites=2, stop={"versions": 4})
    best = load_file(house.ended(old)["result"]["best"]["exported"])
    heads = {site: load_file(kept(house, site, old)) for site in SITES}
    assert not close(heads["cleveland"], heads["hungary"])
    # when it is forgotten while the next one waits for a third site, and the aggregator is killed
    new = house.submit(**HEADS, continues=old, local=local(NEXT_TO_NOTHING), min_sites=3, stop={"versions": 1})
    wait_until(lambda: all(kept(house, s, new).exists() for s in SITES), within=SOON, what="the sites' own tensors")
    assert house.fedbus("rm", old).code == 0
    house.kill(house.aggregator)
    house.start_aggregator()
    house.start_site("switzerland")
    house.ended(new)
    # then it has gone on from there, and each site from its own head
    assert close(load_file(house.job(new)["result"]["exported"]), best)
    assert all(close(load_file(kept(house, site, new)), heads[site]) for site in SITES)


def test_a_job_that_cannot_be_continued_is_refused_with_what_to_do(house: Any) -> None:
    house.start_aggregator()
    running = house.submit(min_sites=2)
    path = house.folder / "next.yaml"
    for job, says in ((running, "submit again when it has ended, or end it with"), ("none", "`fedbus jobs` lists")):
        path.write_text(
            f"{{name: next, task: synthetic, continues: {job}, stop: {{versions: 1}}, "
            "local: {steps: 1, batch_size: 1, learning_rate: 0.1}}"
        )
        said = house.fedbus("submit", str(path))
        assert said.code != 0
        assert says in " ".join(said.err.split())
