"""Many jobs at once: a site trains so many as it has places, the others wait and say so, and all end."""

from __future__ import annotations


def test_a_site_trains_one_job_after_the_other_and_all_end(house):
    # given two sites with a place each
    house.start_aggregator()
    sites = [house.start_site(name, max_jobs=1, status_interval_s=0.5) for name in ("cleveland", "hungary")]
    # when five jobs come at once, one of them urgent
    jobs = [house.submit(min_sites=2, stop={"versions": 3}) for _ in range(4)]
    urgent = house.submit(min_sites=2, stop={"versions": 3}, priority=10)
    # then they wait for their turn, and say so
    sites[0].wait_for("queued", job=jobs[-1])
    assert "queued" in house.fedbus("jobs").out
    # and no site has more than one trainer, until all have ended
    for job in (*jobs, urgent):
        house.ended(job)
    for site in sites:
        holds = 0
        for line in site.events():
            holds += line["event"] == "trainer-ready"
            holds -= line["event"] in ("job-ended", "place-yielded")
            assert holds <= 1
