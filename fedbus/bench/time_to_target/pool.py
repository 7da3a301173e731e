"""Many cases in a few processes: progress as they end, and a file of outcomes so that an interrupted table goes on.

What lives here: processes, the file. What may not: what a case is (see `cases`), which are needed (see `plan`).

The file has one JSON line per outcome, appended when it is known; a line cut off by a crash is ignored. An outcome
that went to its end also answers for the same case that may stop at the target.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import torch

from fedbus.bench.time_to_target.cases import Case, Outcome, run_case

Say = Callable[[str], None]


class Results:
    """Outcomes by case, kept in a file when there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Outcome] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else ():
            try:
                self._keep(Outcome.from_json(line))
            except (json.JSONDecodeError, TypeError, KeyError):
                continue

    def get(self, case: Case) -> Outcome | None:
        """Return what is known of a case."""
        found = self._known.get(case.key)
        return found if found is not None and (found.case.to_end or not case.to_end) else None

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome, in the file too."""
        self._keep(outcome)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                # a line that was cut off must not take this one with it
                file.write(f"\n{outcome.to_json()}\n")

    def _keep(self, outcome: Outcome) -> None:
        known = self._known.get(outcome.case.key)
        if known is None or outcome.case.to_end or not known.case.to_end:
            self._known[outcome.case.key] = outcome


class Pool:
    """Runs cases that are not known yet, in `workers` processes of one torch thread each (1: in this one)."""

    def __init__(self, results: Results, *, workers: int, say: Say) -> None:
        self._results = results
        self._workers = workers
        self._say = say
        self._executor: ProcessPoolExecutor | None = None

    def outcomes(self, cases: Sequence[Case]) -> list[Outcome]:
        """Return the outcome of every case, in order."""
        missing = list(dict.fromkeys(case for case in cases if self._results.get(case) is None))
        # neighbours share their data, which a process keeps
        missing.sort(key=lambda case: (case.scenario, case.seed))
        began = time.monotonic()
        for done, outcome in enumerate(self._run(missing), start=1):
            self._results.add(outcome)
            left_s = (time.monotonic() - began) / done * (len(missing) - done)
            self._say(f"{done}/{len(missing)} {told(outcome)}; about {left_s / 60:.1f} min left")
        return [found for case in cases if (found := self._results.get(case)) is not None]

    def by_case(self, cases: Sequence[Case]) -> dict[Case, Outcome]:
        """Return the outcomes by case."""
        return dict(zip(cases, self.outcomes(cases), strict=True))

    def _run(self, cases: Sequence[Case]) -> Iterator[Outcome]:
        if self._workers <= 1 or len(cases) <= 1:
            with _one_thread():
                yield from map(run_case, cases)
            return
        if self._executor is None:
            context = multiprocessing.get_context("spawn")
            self._executor = ProcessPoolExecutor(self._workers, mp_context=context, initializer=_start_worker)
        for future in as_completed([self._executor.submit(run_case, case) for case in cases]):
            yield future.result()

    def close(self) -> None:
        """End the processes; what has not begun is not run."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def told(outcome: Outcome) -> str:
    """Return one line on an outcome."""
    case = outcome.case
    words = [case.scenario, case.rule]
    words += [] if case.eta is None else [f"eta {case.eta:g}"]
    words += [] if case.lr_factor == 1 else [f"lr x {case.lr_factor:g}"]
    words += [f"ratio {case.ratio:g}", case.codec, case.trouble, f"seed {case.seed}:"]
    words += ["not reached" if outcome.time_s is None else f"{outcome.time_s:g} s"]
    words += [] if outcome.final is None else [f"final {outcome.final:.3f}"]
    return " ".join([*filter(None, words), f"({outcome.cpu_s:.1f} s of CPU)"])


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start_worker() -> None:
    torch.set_num_threads(1)
