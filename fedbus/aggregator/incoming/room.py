"""Whether this machine has the memory for a model: asked before any of it is taken.

A layout is a claim. How many bytes came says nothing about it: a model that is mostly zeros (a fresh head, LoRA's B)
takes next to none on the wire. What counts is what it would cost here.
"""

from __future__ import annotations

from pathlib import Path

from fedbus.core.protocol.layout import Layout
from fedbus.errors import LayoutError
from fedbus.tensors.global_model import MEMORY_COPIES, MODEL_COPIES

SHARE = 0.8
"""Of the memory that is available, so that the other jobs of this aggregator keep some."""
GIB = 1 << 30


def check_room(layout: Layout, *, available_bytes: int | None) -> None:
    """Raise LayoutError when a model of this layout needs more memory than there is; None: nobody knows."""
    needed = 4 * layout.numel * (MODEL_COPIES + MEMORY_COPIES)
    if available_bytes is not None and needed > SHARE * available_bytes:
        raise LayoutError(
            f"a model of {layout.numel:,} elements needs {needed / GIB:.1f} GiB of memory at the aggregator, of "
            f"{available_bytes / GIB:.1f} GiB available: run it on a larger machine, or let the sites keep what is "
            "frozen (`keep`)"
        )


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that this process may still take: of the machine, and of its container; None where neither says."""
    found = [n for n in (_of_machine(proc / "meminfo"), _of_container(cgroup)) if n is not None]
    return min(found, default=None)


def _of_machine(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_container(cgroup: Path) -> int | None:
    try:
        return int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # "max", or no such file
        return None
