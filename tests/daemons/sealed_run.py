"""One job of a federation with kits from its start to its end, for tests that look at what it left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from tests.other_processes import command

LOGINS = ("aggregator", "submitter", "site-a", "site-b")
NUMEL = 80_000
SUITE = "mlkem768-x25519"
"""The larger one: the other tests of daemons with kits seal by the suite that is the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRun:
    """A house whose daemons have ended, after a job and the one that follows it.

    said: what commands printed. arguments: those of all processes while the job ran.
    """

    house: Any
    federation: Any
    job: str
    followed: dict[str, Any]
    said: tuple[str, ...]
    arguments: frozenset[bytes]


def sealed_run(house: Any, federation: Any) -> SealedRun:
    """Everything at level debug, and every update kept at the aggregator."""
    house.start_aggregator(keep_updates=True, log_level="debug", seal_suite=SUITE)
    for site in LOGINS[2:]:
        house.start_site(site, log_level="debug", step_delay_s=0.05, share_local_model=True)
    job = house.submit(
        min_sites=2,
        codec={"up": {"kind": "fp32"}, "down": "fp32"},
        task_config={"numel": NUMEL},
        evaluate_local=True,
        stop={"versions": 4},
    )
    house.committed(1)
    arguments = frozenset(_arguments())
    followed = house.ended(str(house.ended(job)["result"]["follow_up"]))
    to = house.folder / "model.safetensors"
    said = []
    for words in (("show", job), ("get", job, "--to", str(to)), ("audit", "heads")):
        done = house.fedbus(*words, log_level="debug")
        assert done.code == 0, done.err
        said.append(done.out + done.err)
    house.stop_all()
    return SealedRun(
        house=house, federation=federation, job=job, followed=followed, said=tuple(said), arguments=arguments
    )


def _arguments() -> set[bytes]:
    return {"\0".join(command(process)).encode() for process in psutil.process_iter()}
