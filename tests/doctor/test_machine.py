"""The machine of a daemon: disk, who works in the state folder, what is left of a dead one, the clock, its policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbus.doctor.finding import Status
from fedbus.doctor.machine import MIB, clock_is_kept, disk, leftovers, own_clock, processes, room, state
from fedbus.doctor.site import examine_cage, examine_data, examine_policy
from fedbus.site.settings import SiteSettings
from fedbus.store.lock import StateLock

STATE = Path("/var/lib/fedbus")


@pytest.mark.parametrize(
    ("free_mib", "files", "status"),
    [
        (100, None, Status.FAIL),
        (1000, None, Status.WARN),
        (10_000, None, Status.OK),
        (10_000, 10, Status.FAIL),
        (10_000, 10**6, Status.OK),
    ],
)
def test_room_for_bytes_and_for_files(free_mib, files, status):
    assert room(STATE, free_mib * MIB, files).status is status


def test_a_state_folder_that_is_not_there_yet_is_looked_at_where_it_will_be(tmp_path):
    assert str(tmp_path / "sites" / "mercy") in disk(tmp_path / "sites" / "mercy").text


def test_a_daemon_that_runs_holds_its_folder(tmp_path):
    with StateLock(tmp_path):
        [daemon] = state(tmp_path, what="site")
    assert (daemon.status, daemon.text.startswith("site runs (process ")) == (Status.OK, True)


def test_what_waits_for_a_daemon_that_is_gone_is_counted(tmp_path):
    # given the state of a site that was killed with two updates in its outbox
    outbox = tmp_path / "jobs" / "job-1" / "outbox"
    outbox.mkdir(parents=True)
    for number in range(2):
        (outbox / f"{number}.frames").touch()
    with StateLock(tmp_path):
        pass
    daemon, left = state(tmp_path, what="site")
    assert (daemon.status, left.status) == (Status.SKIPPED, Status.WARN)
    assert left.text.startswith("2 updates wait")


def test_a_trainer_whose_daemon_is_gone():
    running = [(7, 1, "/usr/bin/python -m fedbus.training --socket 5"), (8, 7, "python -m fedbus.training --socket 5")]
    assert leftovers(running).fix == "end them: kill 7"
    assert leftovers(running[1:]).status is Status.OK


def test_processes_are_those_of_this_machine():
    assert 1 in {pid for pid, _, _ in processes()}


def test_a_clock_is_kept_or_not_or_nobody_says():
    assert [own_clock(kept).status for kept in (True, False, None)] == [Status.OK, Status.WARN, Status.SKIPPED]
    assert clock_is_kept() in (True, False, None)


# ------------------------------------------------------------------ of a site


def test_a_policy_that_cannot_be_read_is_a_failure_with_every_reason(tmp_path):
    assert examine_policy(None).status is Status.SKIPPED
    assert "cannot be read" in examine_policy(tmp_path / "policy.toml").text
    (tmp_path / "policy.toml").write_text("taks = []\n")
    assert "the site takes part in nothing" in examine_policy(tmp_path / "policy.toml").text


def test_a_site_without_a_kit_has_no_cage(tmp_path):
    settings = SiteSettings.load(site_name="mercy", site_data=tmp_path)
    assert examine_cage(settings).status is Status.SKIPPED


def test_data_are_missing_or_there(tmp_path):
    assert [finding.status for finding in examine_data(tmp_path)] == [Status.FAIL]
    (tmp_path / "patients.csv").touch()
    assert [finding.status for finding in examine_data(tmp_path)] == [Status.OK]
