from __future__ import annotations

import torch

from fedbus.bench.codec import rows


def test_every_code_has_its_rows_beside_memcpy() -> None:
    threads = torch.get_num_threads()

    table = rows(size_bytes=1 << 16, repeats=1)

    codes, columns = ("fp32", "fp16", "bf16", "int8", "int4", "topk"), ("encode", "decode", "decode + fold", "size")
    assert [row["case"] for row in table] == [
        "memcpy",
        *(f"{code} {what}" for code in codes for what in columns),
        "digest",
    ]
    assert all(set(row) == {"case", "value", "unit", "goal", "met"} and row["value"] > 0 for row in table)
    assert torch.get_num_threads() == threads
