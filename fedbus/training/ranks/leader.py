"""Rank 0's side: starts the other ranks, tells them what is trained, and ends with them."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch.distributed as dist

from fedbus.errors import LayoutError, TaskError
from fedbus.training import protocol as p
from fedbus.training.ranks.team import Team

EXIT_BROKEN = 1
END_GRACE_S = 5.0
LOOPBACK = "lo"
log = logging.getLogger(__name__)


class Crew:
    """The other ranks of a job, one process for each of `opening.ranks`.

    They load the task while rank 0 does. When one ends unasked this process ends too, by `leave` with an exit code: the
    site starts them all again.
    """

    def __init__(self, opening: p.Open, *, leave: Callable[[int], None] = os._exit) -> None:
        self.ranks = 1 + len(opening.ranks)
        self._leave = leave
        self._closing = self._met = False
        self._folder = tempfile.TemporaryDirectory(prefix="fedbus-ranks-")
        self._store = Path(self._folder.name) / "store"
        self._members = [self._start(rank) for rank in range(1, self.ranks)]
        for (_, sock), device in zip(self._members, opening.ranks, strict=True):
            p.send_message(sock, dataclasses.replace(opening, device=device, ranks=()))
        for rank, (process, _) in enumerate(self._members, 1):
            name = f"end of rank {rank}"
            threading.Thread(target=self._watch, args=(rank, process), name=name, daemon=True).start()

    def join(self, layout_digest: str, device: torch.device) -> Team:
        """Wait until every rank has loaded the task, and meet them. Raises TaskError when one cannot."""
        for rank, (_, sock) in enumerate(self._members, 1):
            try:
                reply = p.receive_message(sock)
            except (EOFError, OSError) as exc:
                raise TaskError(f"rank {rank} of {self.ranks} ended while it loaded the task") from exc
            if isinstance(reply, p.Failed):
                log.warning("rank %d, reference %s: %s", rank, reply.reference, reply.traceback)
                raise TaskError(f"rank {rank} of {self.ranks} could not load the task: {reply.error}")
            if not isinstance(reply, p.Opened) or reply.layout_digest != layout_digest:
                raise LayoutError(f"rank {rank} of {self.ranks} made another model than rank 0 under the same seed")
        self._met = True
        return join_group(self._store, 0, self.ranks, device)

    def train(self, command: p.Train) -> None:
        """Tell the others what is trained now."""
        for _, sock in self._members:
            p.send_message(sock, command)

    def close(self) -> None:
        """End the other ranks."""
        self._closing = True
        if dist.is_initialized():
            dist.destroy_process_group()
        for _, sock in self._members:
            sock.close()  # the end of the stream ends the other process, where it is not busy
        for process, _ in self._members:
            if self._met:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(END_GRACE_S)
            process.kill()
            process.wait()
        self._folder.cleanup()

    def _start(self, rank: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            number = str(theirs.fileno())
            command = [sys.executable, "-P", "-u", "-m", "fedbus.training.ranks", "--socket", number]
            command += ["--rank", str(rank), "--ranks", str(self.ranks), "--store", str(self._store)]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)), ours

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if self._closing:
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        text = f"fedbus trainer: rank {rank} of {self.ranks} {how}; all ranks end, and the site starts them again"
        print(text, file=sys.stderr, flush=True)
        self._leave(EXIT_BROKEN)


def join_group(store: Path, rank: int, ranks: int, device: torch.device) -> Team:
    """Meet the other ranks on this machine: gloo for tensors of the CPU, NCCL for those of GPUs; blocks until all came.

    Their sockets listen on the loopback interface alone.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = LOOPBACK
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, init_method=f"file://{store}", rank=rank, world_size=ranks)
    return Team(rank, ranks)
