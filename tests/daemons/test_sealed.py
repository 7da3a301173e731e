"""A federation with kits: a job as ever, every crash promise held, and nothing of it on the broker's disk."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

from fedbus.runtime.faults import Point
from tests.waits import SOON

from .sealed_run import NUMEL, SUITE

PACED = {"step_delay_s": 0.05}
SEALED = {"min_sites": 2, "codec": {"up": {"kind": "fp32"}, "down": "fp32"}}
PIECE = 24


def pieces(path: Path) -> list[bytes]:
    """Some spots of what must not be found: numbers, no zeros and no text, which other messages may have too."""
    data = path.read_bytes()
    spots = [data[i : i + PIECE] for i in range(PIECE, len(data) - PIECE, max(1, len(data) // 40))]
    return [spot for spot in spots if len(set(spot)) > PIECE // 2 and not spot.isascii()]


def found_under(folder: Path, wanted: list[bytes]) -> list[str]:
    """Files that hold one of the pieces."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found += [f"{path}: {piece!r}" for piece in wanted if data.find(piece) >= 0]
    return found


def test_a_job_leaves_nothing_on_the_brokers_disk_and_no_key_in_a_log(after_sealed_run):
    house = after_sealed_run.house
    # what the aggregator holds in the clear, as it came: updates, and the models that it made of them or was shown
    held = [path for path in (house.folder / "aggregator").rglob("*") if path.is_file()]
    wanted = [piece for path in held if path.stat().st_size > NUMEL for piece in pieces(path)]
    assert len(wanted) > 40
    assert found_under(house.folder / "aggregator", wanted[:3])
    assert found_under(after_sealed_run.federation.node.base, wanted) == []
    # and no daemon has told a key
    files = [house.running.state_dir(name) / "seal.key" for name in ("aggregator", "site-a", "site-b")]
    keys = [record["private"] for path in files for record in json.loads(path.read_text())]
    said = "".join(daemon.log.read_text() for daemon in house.running.daemons)
    assert len(keys) == 6
    assert not any(key in said for key in keys)
    assert "PRIVATE KEY" not in said


def test_the_suite_against_quantum_computers_works(after_sealed_run):
    house, job = after_sealed_run.house, after_sealed_run.job
    assert SUITE == "mlkem768-x25519"
    assert {fact.update_id.site for fact in house.folded(job)} == {"site-a", "site-b"}
    assert [fact.version for fact in house.versions(job)] == [1, 2, 3, 4]


def test_the_job_that_follows_a_training_is_taken_by_the_sites(after_sealed_run):
    assert after_sealed_run.followed["result"]["models"]


def test_every_update_counts_once_whoever_is_killed_and_whatever_key_is_lost(sealed_house):
    house = sealed_house
    house.start_aggregator(checkpoint_interval_s=0.3, keep_updates=True)
    doomed = [
        house.start_site("cleveland", fault=f"{Point.SITE_BETWEEN_CHUNKS}:3", **PACED),
        house.start_site("hungary", fault=f"{Point.SITE_BEFORE_MANIFEST}:2", **PACED),
    ]
    job = house.submit(**SEALED, chunk_bytes=256 * 1024, task_config={"numel": 160_000}, stop={"versions": 10})
    for site in doomed:
        assert house.exit_code(site, within=SOON) == -9
        house.start_site(site.name, **PACED)
    house.committed(4)
    # when the aggregator is killed, and comes back without the key that updates under way are sealed to
    house.kill(house.aggregator)
    (house.running.state_dir("aggregator") / "seal.key").unlink()
    house.start_aggregator(checkpoint_interval_s=0.3, keep_updates=True)
    house.ended(job)

    folded = [fact.update_id for fact in house.folded(job)]
    assert len(folded) == len(set(folded))
    assert set(house.refused_in_time(job)) <= {"the job has its initial params already"}  # both made some
    for name in ("cleveland", "hungary"):
        sequences = sorted(u.sequence for u in folded if u.site == name)
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    house.stop_all()
    replayed = house.fedbus("replay", str(house.folder / "aggregator"), "--job", job, "--verify")
    assert replayed.code == 0, replayed.err
