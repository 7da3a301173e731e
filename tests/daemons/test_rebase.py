"""A site that returns after many versions is told to rebase, and nothing of it is dropped."""

from __future__ import annotations

from fedbus.local.federation import wait_until
from tests.waits import SOON

LIMIT = 40
"""20 N / K versions, for two sites and a buffer of one."""


def test_an_update_from_long_ago_is_folded_and_its_site_goes_on_from_a_version_that_counts(house):
    # given a site whose trainer stands still in the middle of a training while the other site makes many versions
    house.start_aggregator()
    house.start_site("cleveland")
    site = house.start_site("hungary", step_delay_s=0.5, status_interval_s=0.5)
    local = {"steps": 10, "batch_size": 1, "learning_rate": 0.05, "evaluate": False}
    job = house.submit(min_sites=2, strategy="fedasync", local=local, stop={"versions": 10**6})

    def in_training():
        doing = house.site("hungary")["jobs"].get(job)
        return doing and doing["activity"] == "training" and 0 < doing["step"] < 5

    def folded():
        return [fact for fact in house.folded(job) if fact.update_id.site == "hungary"]

    wait_until(in_training, within=SOON, what="hungary in a training", or_else=site.last_words)
    (trainer,) = house.trainers(site)
    trainer.suspend()
    version = house.job(job)["version"] + 2 * LIMIT
    house.aggregator.wait_for("version-committed", within=SOON, version=version)
    before = len(folded())
    # when it has sent what it had begun, and one more
    trainer.resume()
    wait_until(lambda: len(folded()) > before + 1, within=SOON, what="two updates of hungary", or_else=site.last_words)
    told = site.wait_for("rebase", job=job)
    house.ask(lambda client: client.abort(job, "seen enough"))
    house.ended(job, state="aborted")
    # then its update was folded, and with it it was told what is too old to train from
    first, second = folded()[before : before + 2]
    assert first.staleness > LIMIT
    assert (told["update"], told["from_version"]) == (str(first.update_id), first.rebase)
    assert first.rebase == first.base_version + first.staleness - LIMIT
    # and it goes on from a version that is new enough
    assert second.base_version >= first.rebase
