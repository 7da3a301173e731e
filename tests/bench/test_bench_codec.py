from __future__ import annotations

import torch

from fedbus.bench.codec import rows


def test_every_code_has_its_rows_beside_memcpy() -> None:
    threads = torch.get_num_threads()

    table = rows(size_bytes=1 << 16, repeats=1)

    columns, version = ("encode", "decode", "decode + fold", "size"), "size of a version"
    floats = [f"{code} {what}" for code in ("fp32", "fp16", "bf16") for what in columns]
    int8 = [f"int8 {what}" for what in (*columns, version)]
    coarse = [f"{code} {what}" for code in ("int4", "topk") for what in (*columns, "update", version)]
    assert [row["case"] for row in table] == ["memcpy", *floats, *int8, *coarse, "digest"]
    assert all(set(row) == {"case", "value", "unit", "goal", "met"} and row["value"] > 0 for row in table)
    assert torch.get_num_threads() == threads
