"""A site that returns after many versions is told to rebase, and nothing of it is dropped."""

from __future__ import annotations


def test_an_update_from_long_ago_is_folded_and_its_site_goes_on_from_a_version_that_counts(house):
    # given a site whose training takes longer than 40 versions of the other one
    house.start_aggregator()
    house.start_site("cleveland")
    slow = house.start_site("hungary", step_delay_s=4.0)
    # when a job runs for three of its trainings
    job = house.submit(min_sites=2, strategy="fedasync", stop={"wall_time_s": 27.0})
    told = slow.wait_for("rebase", job=job)
    house.ended(job)
    # then its updates are folded, and with each it is told what is too old to train from
    first, second, *_ = (fact for fact in house.folded(job) if fact.update_id.site == "hungary")
    assert first.staleness > 40
    assert (told["update"], told["from_version"]) == (str(first.update_id), first.rebase)
    assert first.rebase == first.base_version + first.staleness - 40
    # and it goes on from a version that is new enough
    assert second.base_version >= first.rebase
