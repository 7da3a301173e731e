"""The audit logs of a whole federation: what they tell, and that nothing leaves without its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbus.store.audit import FOLDER, files_of, lines_of
from fedbus.store.audit_check import verify
from fedbus.store.audit_line import Line


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
    assert {f["update"] for f in updates} >= {fact.update_id.__str__() for fact in house.folded(job)}
    assert all(f["submitter"] == "submitter" and f["task_version"].startswith("fedbus ") for f in updates)
    assert all(f["bytes"] > 0 and len(f["sha256"]) == len(f["policy"]) == 64 for f in updates)
