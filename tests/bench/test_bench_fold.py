from __future__ import annotations

import torch

from fedbus.bench.fold import rows


def test_every_size_has_its_speed_and_its_share_of_the_bandwidth() -> None:
    threads = torch.get_num_threads()

    table = rows(params=(1000, 300_000), reference=300_000, turns=2)

    assert [(row["case"], row["unit"]) for row in table] == [
        ("memory bandwidth", "GB/s"),
        ("fold 0.001 M params", "GB/s"),
        ("fold 0.001 M params", "% of bandwidth"),
        ("fold 0.3 M params", "GB/s"),
        ("fold 0.3 M params", "% of bandwidth"),
    ]
    bandwidth, _, share, speed, percent = (row["value"] for row in table)
    assert abs(percent - 100 * speed / bandwidth) < 0.1
    assert share > 0
    assert torch.get_num_threads() == threads
