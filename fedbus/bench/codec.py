"""How fast the codec is on this machine: GB/s of fp32 per code, 25 M params, beside memcpy in the same run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.tensors.codec import decode_all_, decode_fold_all_, encode
from fedbus.tensors.digest import digest
from fedbus.tensors.feedback import encode_update_

# GB/s of fp32 on one core. Encoded is quantised and compressed; decoded into a sum with a weight is what a fold takes.
_ENCODE_GOALS = {Code.INT8: 1.0, Code.INT4: 0.7, Code.TOPK: 0.5}
_ENCODE_GOAL = 50 * 2**20 / 0.08 / 1e9
_DECODE_GOAL = 50 * 2**20 / 0.05 / 1e9
_FOLD_GOAL = 2.0
_DIGEST_GOAL = 50 * 2**20 / 0.03 / 1e9


def rows(*, size_bytes: int = 100_000_000, repeats: int = 5) -> list[dict[str, Any]]:
    """Return one row {case, value, unit, goal, met} per case, each the best of `repeats`, on one torch thread.

    The vector is a delta as training leaves it: normal, in layers whose scales differ by 100.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(size_bytes // 4, repeats)
    finally:
        torch.set_num_threads(threads)


def _measure(numel: int, repeats: int) -> list[dict[str, Any]]:
    layout = Layout.of([TensorSpec(name="params", shape=(numel,), dtype="float32")])
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(numel, generator=generator) * torch.logspace(-4, -2, numel)
    out = torch.empty_like(flat)

    def speed(run: Callable[[], object]) -> float:
        return 4 * numel / _best_seconds(run, repeats) / 1e9

    table = [_row("memcpy", speed(lambda: out.copy_(flat)))]
    for code in Code:
        frames, version = (list(encode(flat, layout, code, seed=0, to_hidden=to_hidden)) for to_hidden in (False, True))
        table += [
            _row(
                f"{code} encode",
                speed(partial(_encode_whole, flat, layout, code)),
                goal=_ENCODE_GOALS.get(code, _ENCODE_GOAL),
            ),
            _row(f"{code} decode", speed(partial(decode_all_, out, frames, layout)), goal=_DECODE_GOAL),
            _row(
                f"{code} decode + fold",
                speed(partial(decode_fold_all_, out, frames, layout, 0.25)),
                goal=_FOLD_GOAL if code in _ENCODE_GOALS else None,
            ),
            _row(f"{code} size", _share(frames, numel), unit="% of fp32"),
        ]
        if code.is_coarse:
            table.append(_row(f"{code} update", speed(partial(_encode_update, flat, out, layout, code))))
        if version != frames:
            table.append(_row(f"{code} size of a version", _share(version, numel), unit="% of fp32"))
    return [*table, _row("digest", speed(lambda: digest(flat)), goal=_DIGEST_GOAL)]


def _share(frames: list[bytes], numel: int) -> float:
    return 100 * sum(map(len, frames)) / (4 * numel)


def _encode_whole(flat: Tensor, layout: Layout, code: Code) -> None:
    for _frame in encode(flat, layout, code, seed=0):
        pass


def _encode_update(flat: Tensor, out: Tensor, layout: Layout, code: Code) -> None:
    """What a site does: encode, and decode once for what is left out; a copy comes on top."""
    encode_update_(out.copy_(flat), layout, code, take=partial(deque, maxlen=0), seed=0)


def _best_seconds(run: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(1 + repeats):  # one more than asked: the first pays for page faults
        started = time.thread_time()  # of this thread: another process that takes turns with us costs less
        run()
        best = min(best, time.thread_time() - started)
    return best


def _row(case: str, value: float, *, unit: str = "GB/s", goal: float | None = None) -> dict[str, Any]:
    met = None if goal is None else value >= goal
    return {"case": case, "value": round(value, 3), "unit": unit, "goal": goal and round(goal, 3), "met": met}
