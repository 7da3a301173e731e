from __future__ import annotations

from fedbus.bench.checkpoint import rows


def test_what_a_checkpoint_holds_up_has_a_row_each() -> None:
    found = list(rows(sizes_mib=[1], times=2))

    assert [row["case"] for row in found] == [
        f"1 MiB: a checkpoint holds up {what}" for what in ("folding", "the next commit", "the next checkpoint")
    ]
    folding, commit, disk = (row["value"] for row in found)
    assert folding <= commit <= disk
