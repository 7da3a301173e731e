"""A job with fewer sites than it asks for: it pauses, says so, and goes on; what its sites may ask of it."""

from __future__ import annotations

import json

QUICK = {"status_interval_s": 0.5, "step_delay_s": 0.02}


def test_a_job_pauses_while_a_site_is_away_and_goes_on_when_it_is_back(house):
    # given a job that asks for two sites
    house.start_aggregator()
    house.start_site("cleveland", **QUICK)
    hungary = house.start_site("hungary", **QUICK)
    job = house.submit(min_sites=2, stop={"versions": 1000})
    house.committed(2)
    # when one of them leaves
    hungary.stop()
    house.aggregator.wait_for("job-paused", job=job)
    at = house.job(job)["version"]
    # then it stands still, and `fedbus jobs` says for whom
    (row,) = house.fedbus("jobs", "-o", "json").json
    assert row["says"].startswith("paused: 1 of 2 sites is there")
    assert "hungary left " in row["says"]
    assert house.job(job)["version"] == at
    # and when the site is back it goes on, with nothing refused
    house.start_site("hungary", **QUICK)
    house.aggregator.wait_for("job-resumed", job=job)
    house.committed(at + 3)
    assert house.refused_in_time(job) == []


def test_every_version_comes_from_as_many_sites_as_the_job_promised(house):
    # given a site that takes part only where every version comes from two sites at least
    house.start_aggregator()
    house.start_site("cleveland", **QUICK)
    house.start_site("hungary", min_contributors=2, **QUICK)
    alone = house.submit(stop={"versions": 2}, strategy={"kind": "buffered", "buffer": 1})
    together = house.submit(name="both", min_contributors=2, stop={"versions": 4})
    # when both jobs end
    for job in (alone, together):
        house.ended(job)
    # then it has declined the one that does not promise it
    reason = "this site takes part from 2 sites on: set min_contributors: 2 in the job"
    assert reason in house.aggregator.wait_for("site-declined", job=alone, site="hungary")["text"]
    # and the other one kept its promise, in every version
    for version in house.versions(together):
        assert {update.site for update in version.update_ids} == {"cleveland", "hungary"}
    # and `fedbus show` lists both
    shown = house.fedbus("show", together, "-o", "json").json
    assert shown["sites"].keys() == {"cleveland", "hungary"}


def test_watching_a_job_that_every_site_declines_ends_with_the_reasons(house):
    # given a site that takes part only where every version comes from two sites
    house.start_aggregator(nobody_left_s=0.5)
    site = house.start_site("hungary", min_contributors=2, **QUICK)
    site.wait_for("site-ready")
    # when a job is watched that does not promise that, and that names a site by a name which nobody has
    spec = house.spec(sites=["hungary", "clevelnd"], min_sites=2, stop={"versions": 2})
    said = house.fedbus("submit", "-", "--watch", stdin=json.dumps(spec))
    # then it is told of the name at once, and in the end of the reason
    assert said.err == "note: site clevelnd is not enrolled at the broker\n"
    assert said.code == 1
    *_, last = said.out.splitlines()
    assert "failed: only clevelnd of the 2 sites it needs is left to take part: hungary: " in last
    assert last.endswith("set min_contributors: 2 in the job")
