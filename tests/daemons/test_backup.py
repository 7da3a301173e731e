"""A backup that is taken while a job runs, and a federation that goes on from it on another machine."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fedbus.local.federation import wait_until

SOON = timedelta(seconds=30)
PACED = {"step_delay_s": 0.05}


@pytest.mark.parametrize("kind", ["house", "sealed_house"])
def test_a_job_goes_on_from_its_backup_and_nothing_counts_twice(kind, request):
    house = request.getfixturevalue(kind)
    folder, other, file = house.folder / "aggregator", house.folder / "other", house.folder / "backup.tar"
    # given a job that has gone on since its backup
    house.start_aggregator(checkpoint_interval_s=0.2, keep_updates=True)
    names = ("site-a", "site-b") if kind == "sealed_house" else ("cleveland", "hungary")
    sites = [house.start_site(name, **PACED) for name in names]
    job = house.submit(stop={"versions": 30})
    house.committed(5)
    said = house.fedbus("backup", "--to", str(file), "--state-dir", str(folder))
    assert said.code == 0, said.err
    assert file.stat().st_mode & 0o777 == 0o600
    assert not (folder / ".backup").exists()
    at = house.job(job)["version"]
    house.committed(at + 4)
    # when the machine is lost, and another one has the backup
    house.kill(house.aggregator)
    lost = {fact.update_id for fact in house.folded(job)}
    said = house.fedbus("restore", str(file), "--state-dir", str(other))
    assert said.code == 0, said.err
    assert f"goes on          {job} at version" in said.out
    folder.rename(house.folder / "lost")
    other.rename(folder)
    kept = {fact.update_id for fact in house.folded(job)}
    assert kept < lost
    house.start_aggregator(keep_updates=True)
    # then the sites begin with what it has, and the job comes to its end
    for site in sites:
        site.wait_for("model-log-anew", job=job)
    house.ended(job)
    folded, versions = house.folded(job), house.versions(job)
    ids = [fact.update_id for fact in folded]
    assert len(set(ids)) == len(ids)
    assert [fact.version for fact in versions] == list(range(1, 31))
    # what was folded after the backup is in no version any more, all else is: each once
    assert kept <= set(ids)
    assert not set(ids) & (lost - kept)
    replayed = house.fedbus("replay", str(folder), "--verify")
    assert (replayed.code, f"versions 0 to 30, {len(ids)} updates" in replayed.out) == (0, True), replayed
    assert "restored from the backup of" in house.fedbus("show", job).out
    # and no site has an update left that nobody has answered
    for site in names:
        outbox = house.running.state_dir(site) / "jobs" / job / "outbox"
        wait_until(lambda at=outbox: not list(at.glob("*.frames")), within=SOON, what="the last receipts")
