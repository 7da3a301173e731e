"""A backup that is taken while a job runs, and a federation that goes on from it on another machine."""

from __future__ import annotations

import time
from datetime import timedelta

from fedbus.bus.topology import another_models_stream
from fedbus.local.federation import wait_until
from fedbus.store.backup import back_up
from fedbus.store.restore import restore

SOON = timedelta(seconds=30)


def test_a_job_goes_on_from_its_backup_and_nothing_counts_twice(sealed_house):
    house = sealed_house
    folder, other, file = house.folder / "aggregator", house.folder / "other", house.folder / "backup.tar"
    # given a job that has gone on since its backup
    house.start_aggregator(checkpoint_interval_s=0.2, keep_updates=True)
    site = house.start_site("site-a", step_delay_s=0.1)
    job = house.submit(stop={"versions": 16})
    house.committed(3)
    (backed_up,) = back_up(folder, file, release="0.1.0", at=time.time()).jobs
    assert file.stat().st_mode & 0o777 == 0o600
    assert not (folder / ".backup").exists()
    house.committed(backed_up.version + 2)
    # when the machine is lost, and another one has the backup
    house.kill(house.aggregator)
    lost = {fact.update_id for fact in house.folded(job)}
    made = restore(file, other, renamed=another_models_stream, at=time.time())
    assert made.going_on == (job,)
    assert made.old_logs == (house.model_log(job),)
    folder.rename(house.folder / "lost")
    other.rename(folder)
    kept = {fact.update_id for fact in house.folded(job)}
    assert kept < lost
    house.start_aggregator(keep_updates=True)
    # then the sites begin with what it has, and the job comes to its end
    site.wait_for("model-log-anew", job=job)
    house.ended(job)
    folded, versions = house.folded(job), house.versions(job)
    ids = [fact.update_id for fact in folded]
    assert len(set(ids)) == len(ids)
    assert [fact.version for fact in versions] == list(range(1, 17))
    # what the backup has is in it; of what came after it, what the site had no receipt of was sent again
    assert kept <= set(ids)
    replayed = house.fedbus("replay", str(folder), "--verify")
    assert (replayed.code, f"versions 0 to 16, {len(ids)} updates" in replayed.out) == (0, True), replayed
    assert "restored from the backup of" in str(house.job(job)["incidents"])
    # and the site has no update left that nobody has answered
    outbox = house.running.state_dir("site-a") / "jobs" / job / "outbox"
    wait_until(lambda: not list(outbox.glob("*.frames")), within=SOON, what="the last receipts")
