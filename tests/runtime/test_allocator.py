"""Memory of chunks stays with a process that seals: the kernel is not asked for it again and again."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import os, resource
from fedbus.runtime.allocator import keep_freed_chunks
from fedbus.trust.sealing import ChunkSeal
print(keep_freed_chunks())
seal, chunk = ChunkSeal(bytes(32), b""), os.urandom(1 << 20)
def sealed(times):
    held = []
    for _ in range(times):
        held = [*held[-8:], seal.open(seal.seal(chunk, 0, 1), 0, 1)]
sealed(20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
sealed(100)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 100)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_sealing_a_chunk_costs_no_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)

    kept, faults = done.stdout.split()

    assert kept == "True"
    assert int(faults) < 20
