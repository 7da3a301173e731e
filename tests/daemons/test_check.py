"""`fedbus check --sites`: who could take a job, asked before it is sent."""

from __future__ import annotations

import json


def test_check_asks_who_could_take_a_job_and_submits_nothing(manned_house):
    # given a site that offers one task
    manned_house.start_site("cleveland", tasks="synthetic")
    manned_house.aggregator.wait_for("site-joined", site="cleveland")

    def check(**keys):
        return manned_house.fedbus("check", "-", "--sites", stdin=json.dumps(manned_house.spec(**keys)))

    # when a job that it can take is checked, then it could start
    said = check(sites=["cleveland"])
    assert said.code == 0, said.err
    assert "cleveland  could take part" in said.out
    # when a job names a site wrongly, or another task, or more sites, then it could not, and why is said
    unknown = check(sites=["clevland"])
    assert unknown.code == 1
    assert "did you mean 'cleveland'?" in unknown.out
    other = check(task="digits")
    assert other.code == 1
    assert "does not offer task 'digits'; it offers synthetic" in other.out
    few = check(min_sites=2)
    assert few.code == 1
    assert "1 could take part, 2 needed" in few.out
    # and no job has come of it
    assert manned_house.ask(lambda client: client.jobs()) == []
