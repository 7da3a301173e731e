from __future__ import annotations

import pytest
import torch

from fedbus.bench import agreement

torch.set_num_threads(1)


def test_the_slowest_site_takes_ten_times_as_long_as_the_fastest() -> None:
    periods = agreement.periods_s()

    assert (len(periods), periods[0]) == (8, 1.0)
    assert periods[-1] == pytest.approx(10.0)


def test_the_simulator_runs_the_job_that_the_daemons_get() -> None:
    first, again = (agreement._virtual(seed=0, target=0.3) for _ in range(2))

    assert first == again
    assert 1.0 < first.seconds < agreement.MOST_VIRTUAL_S
    assert first.updates > 8
