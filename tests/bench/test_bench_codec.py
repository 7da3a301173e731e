from __future__ import annotations

import torch

from fedbus.bench.codec import rows


def test_every_code_has_its_rows_beside_memcpy() -> None:
    threads = torch.get_num_threads()

    table = rows(size_bytes=1 << 16, repeats=1)

    columns, to_hidden = ("encode", "decode", "decode + fold", "size"), ("size of a version",)
    exact = [f"{code} {what}" for code in ("fp32", "fp16", "bf16") for what in columns]
    whole_steps = [f"{code} {what}" for code in ("int8", "int4", "topk") for what in (*columns, *to_hidden)]
    assert [row["case"] for row in table] == ["memcpy", *exact, *whole_steps, "digest"]
    assert all(set(row) == {"case", "value", "unit", "goal", "met"} and row["value"] > 0 for row in table)
    assert torch.get_num_threads() == threads
