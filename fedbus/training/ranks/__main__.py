"""`python -m fedbus.training.ranks`: one of the ranks beside a trainer, which starts it and ends it.

It is told Open once and Train for each training, and answers Open alone: all else the ranks say to each other.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import torch

from fedbus.core.spec.training import LocalSpec
from fedbus.errors import ProtocolError
from fedbus.tensors.sharing import Sharing, parts_of
from fedbus.training import protocol as p
from fedbus.training.device import is_broken, pick_device, seed_everything
from fedbus.training.process import die_with_parent
from fedbus.training.program import TaskProgram, load_program
from fedbus.training.ranks.leader import join_group
from fedbus.training.ranks.team import Team
from fedbus.training.run import Run, TrainingCancelled
from fedbus.training.sayable import trouble_of

log = logging.getLogger("fedbus.training.ranks")


class Follower:
    """A rank that has loaded its task."""

    def __init__(self, opening: p.Open) -> None:
        torch.set_num_threads(opening.threads)
        self.device = pick_device(opening.device)
        self._local = LocalSpec.model_validate(dict(opening.local))
        self._program: TaskProgram = load_program(opening, self.device)
        sharing = Sharing(travel=opening.travel, keep=opening.keep, frozen=opening.frozen)
        parts = parts_of(self._program.inventory(), sharing)
        self._program.freeze(parts.frozen)
        self.opened = p.Opened(device=str(self.device), layout_digest=parts.layout.digest, numel=parts.layout.numel)

    def train(self, command: p.Train, team: Team) -> None:
        """Follow one training of rank 0."""
        seed_everything(command.seed)
        local = self._local if command.steps is None else self._local.model_copy(update={"steps": command.steps})
        with suppress(TrainingCancelled):
            self._program.train(Run(local, seed=command.seed, device=self.device, team=team))


def main() -> int:
    """Serve rank 0 until it closes the socket; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fedbus.training.ranks", description="Started by a trainer.")
    for name, kind in (("socket", int), ("rank", int), ("ranks", int), ("store", Path)):
        parser.add_argument(f"--{name}", required=True, type=kind)
    given = parser.parse_args()
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=given.socket)
    sock.set_inheritable(False)
    opening = p.receive_message(sock)
    if not isinstance(opening, p.Open):
        raise ProtocolError(f"a rank is told Open first, got {type(opening).__name__}")
    try:
        follower = Follower(opening)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever a task raises is rank 0's to report
        trouble = trouble_of(exc, data=Path(opening.data))
        failed = p.Failed(error=trouble.said, traceback=trouble.traceback, fatal=False, reference=trouble.reference)
        p.send_message(sock, failed)
        return _wait_for_end(sock)
    p.send_message(sock, follower.opened)
    return _follow(sock, follower, join_group(given.store, given.rank, given.ranks, follower.device))


def _follow(sock: socket.socket, follower: Follower, team: Team) -> int:
    while True:
        try:
            command = p.receive_message(sock)
        except (EOFError, OSError):
            return 0
        if not isinstance(command, p.Train):
            return 0
        try:
            follower.train(command, team)
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - it is said in the log, and the ranks know that it failed
            log.warning("rank %d: %s", team.rank, trouble_of(exc).traceback)
            if is_broken(exc):
                return 1


def _wait_for_end(sock: socket.socket) -> int:
    """Rank 0 reads what was said, and ends this process."""
    with suppress(EOFError, OSError):
        p.receive_message(sock)
    return 0


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("fedbus").setLevel(logging.INFO)
    sys.exit(main())
