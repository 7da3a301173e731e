"""Who could take a job, as far as the aggregator knows before it is sent."""

from __future__ import annotations

from typing import Any

from fedbus.core.job.spec_sites import KnownSite, Prospect, prospect
from fedbus.core.spec.training import TrainingSpec

SPEC = {
    "name": "heart",
    "task": "heart_disease",
    "local": {"steps": 20, "batch_size": 16, "learning_rate": 0.1},
    "stop": {"versions": 40},
}
MERCY = KnownSite(name="mercy", state="online", tasks=("digits", "heart_disease"))
OAK = KnownSite(name="oak", state="online", tasks=("heart_disease_2",))
VA = KnownSite(name="va", state="lost", tasks=("heart_disease",))


def found(*known: KnownSite, **keys: Any) -> Prospect:
    return prospect(TrainingSpec.parse(SPEC | keys), known)


def test_a_job_for_everybody_could_be_taken_by_who_is_there_and_has_its_task():
    said = found(MERCY, OAK, VA)

    assert said.could == ("mercy",)
    assert said.cannot["va"] == "has the task, but is lost"
    assert said.cannot["oak"] == (
        "does not offer task 'heart_disease'; it offers heart_disease_2; did you mean 'heart_disease_2'?"
    )
    assert said.could_start


def test_a_named_site_that_nobody_knows_is_said_with_the_nearest_name():
    said = found(MERCY, VA, sites=["mercey"])

    assert not said.could_start
    assert "is not known to the aggregator" in said.cannot["mercey"]
    assert said.cannot["mercey"].endswith("did you mean 'mercy'?")
    assert said.cannot["mercy"] == "is not named in sites"


def test_min_contributors_counts_as_min_sites_does():
    assert not found(MERCY, VA, min_contributors=2).could_start
    assert found(MERCY, OAK, min_sites=1).could_start
    assert found().says.startswith("could not start now: 0 could take part, 1 needed")
