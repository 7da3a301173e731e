"""The audit logs of a whole federation: what they tell, and that nothing leaves without its line."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbus.store.audit import FOLDER, files_of, lines_of
from fedbus.store.audit_check import verify
from fedbus.store.audit_line import Head, Line
from fedbus.store.ledger import Ledger


def lines(folder: Path, kind: str | None = None) -> list[Line]:
    found = [line for file in files_of(folder / FOLDER) for _, line in lines_of(file) if isinstance(line, Line)]
    return [line for line in found if kind in (None, line.kind)]


def facts(folder: Path, kind: str) -> list[Mapping[str, Any]]:
    return [line.facts for line in lines(folder, kind)]


def test_a_job_stands_in_the_log_of_its_site(house: Any) -> None:
    house.start_aggregator()
    site = house.start_site("cleveland")
    job = house.submit()
    house.ended(job)
    site.wait_for("job-ended", job=job)
    house.terminate(site)
    folder = house.running.state_dir("cleveland")
    assert verify(folder / FOLDER).fault is None
    kinds = [line.kind for line in lines(folder)]
    assert kinds[:2] == ["log-begun", "log-opened"]
    assert kinds[-1] == "log-closed"
    for kind in ("job-offered", "job-accepted", "job-started", "trainer-started", "trainer-ended", "job-ended"):
        assert kinds.count(kind) == 1, (kind, kinds)
    assert kinds.count("broker-login") == 3
    updates = facts(folder, "update-leaves")
    assert {f["update"] for f in updates} >= {str(fact.update_id) for fact in house.folded(job)}
    assert all(f["submitter"] == "submitter" and f["task_version"].startswith("fedbus ") for f in updates)
    assert all(f["bytes"] > 0 and len(f["sha256"]) == 64 and len(f["settings"]) == 16 for f in updates)


def test_the_aggregator_keeps_the_heads_of_its_sites_and_tells_of_a_log_that_was_begun_anew(house: Any) -> None:
    # given a site whose updates are folded
    aggregator = house.start_aggregator()
    site = house.start_site("cleveland", step_delay_s=0.02)
    job = house.submit(stop={"versions": 100_000})
    house.committed(4)
    house.terminate(site)
    folder = house.running.state_dir("cleveland")
    with Ledger(house.folder / "aggregator" / "ledger.sqlite3") as ledger:
        (kept,) = ledger.audit_heads()
    assert (kept.site, kept.job) == ("cleveland", job)
    assert verify(folder / FOLDER, [kept.head]).heads == 1
    # when somebody deletes the log of the site, and it goes on with another
    shutil.rmtree(folder / FOLDER)
    house.start_site("cleveland", data=house.folder / "data" / "cleveland", step_delay_s=0.02)
    # then the aggregator says so, and the old head names it
    told = aggregator.wait_for("site-audit-differs", site="cleveland")
    assert Head.parse(told["known"]).sequence >= kept.head.sequence
    assert "rewritten" in str(verify(folder / FOLDER, [kept.head]).fault) or "cut" in str(
        verify(folder / FOLDER, [kept.head]).fault
    )
    house.ask(lambda client: client.abort(job, None))
    house.ended(job, state="aborted")
    house.terminate(aggregator)
    # and its own log has it all
    own = house.running.state_dir("aggregator")
    assert verify(own / FOLDER).fault is None
    kinds = {line.kind for line in lines(own)}
    assert kinds >= {"job-submitted", "site-joined", "site-accepted", "job-started", "update-folded", "version-leaves"}
    assert kinds >= {"audit-differs", "job-aborted", "job-ended", "site-left", "broker-login"}
    folded = facts(own, "update-folded")
    assert str(kept.head) in {f["audit"] for f in folded}
    assert len(facts(own, "version-leaves")) >= len(house.versions(job))
