"""Who may read a job's model log: a bit of its name for each site, and a broker that refuses everybody else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.bus import topology
from fedbus.bus.connection import Session
from fedbus.bus.declare import declare
from fedbus.bus.log_readers import MOST_SITES, may_read, models_read_pattern, readers_of
from fedbus.bus.stream import StreamReader
from fedbus.bus.topology import new_models_stream
from fedbus.errors import LoginError
from tests.conftest import Federation

NUMBERS = st.integers(0, MOST_SITES - 1)


@pytest.mark.parametrize(
    ("numbers", "readers"),
    [([0], "1"), ([3], "8"), ([4], "01"), ([0, 5], "12"), ([0, 1, 2, 3, 7], "f8"), ([], "0"), (None, "all")],
)
def test_the_readers_of_a_log_stand_in_its_name(numbers: list[int] | None, readers: str) -> None:
    assert readers_of(numbers) == readers
    assert new_models_stream("heart", readers).endswith(f".{readers}")


@given(st.sets(NUMBERS, max_size=20), NUMBERS)
def test_a_site_reads_the_logs_that_have_its_bit_and_no_other(numbers: set[int], number: int) -> None:
    assert may_read(new_models_stream("heart", readers_of(numbers)), number) is (number in numbers)
    assert may_read(new_models_stream("heart", readers_of(None)), number)


def test_a_site_of_a_federation_with_kits_reads_no_log_whose_name_says_nothing() -> None:
    assert not may_read(topology.models_stream("heart"), 0)
    assert not may_read(new_models_stream("heart"), 0)


def test_the_longest_name_is_one_that_a_broker_takes() -> None:
    name = new_models_stream("x" * 40, readers_of(range(MOST_SITES)))
    assert len(name) <= 255
    assert may_read(name, MOST_SITES - 1)
    assert topology.is_models_stream(name, "x" * 40)


@pytest.mark.parametrize("number", [-1, MOST_SITES, 9999])
def test_a_number_that_no_name_has_room_for_is_refused(number: int) -> None:
    for refuse in (models_read_pattern, lambda number: readers_of([number])):
        with pytest.raises(ValueError, match="at most 640 sites"):
            refuse(number)


@pytest.mark.parametrize("tail", ["", "ab.", "ab.all.", "ab.xyz", "ab.ALL", "ab." + "f" * 161, "ab.1\n"])
def test_a_site_follows_no_stream_whose_name_is_none(tail: str) -> None:
    assert not topology.is_models_stream(f"fedbus.models.heart.{tail}", "heart")


async def test_the_broker_refuses_the_log_of_a_job_that_one_has_no_part_in(vhost: Federation) -> None:
    # given logs for the sites 0 and 5, for the site 6, and for all
    logs = {
        name: new_models_stream(f"job-{name}", readers_of(numbers))
        for name, numbers in {"ours": [0, 5], "theirs": [6], "all": None}.items()
    }
    size = topology.ModelLogSize(snapshot_bytes=1, delta_bytes=1, snapshot_every=1)
    async with Session(vhost.url("aggregator"), name="aggregator") as aggregator:
        for name, log in logs.items():
            await declare(aggregator, topology.job_models(f"job-{name}", size, stream=log))
    # when a site has the permission of number 5
    reads = rf"^(fedbus\.site\.site-a|{models_read_pattern(5)})(?!\n)$"
    vhost.node.ctl("set_permissions", "-p", vhost.vhost, "site-a", "^$", r"^fedbus\.(sites|updates)$", reads)
    # then the broker lets it read the first and the last, and refuses the other
    async with Session(vhost.url("site-a"), name="site-a") as site:
        for name in ("ours", "all"):
            assert await StreamReader(site, logs[name]).newest() is None
        with pytest.raises(LoginError, match=re.escape(logs["theirs"])):
            await StreamReader(site, logs["theirs"]).newest()
