"""Standing by: a second aggregator on the same state folder waits until the first one is gone, then takes over.

The kernel frees the folder's lock with its holder, however that ends, so two never work at once. One that is only
stopped (SIGSTOP, a frozen machine) still holds it. The folder must lie on a file system whose locks reach every machine
that stands by; the single active consumer of each queue is the second line of defence.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from fedbus.errors import FolderInUseError
from fedbus.store.lock import StateLock

LOOK_AGAIN = timedelta(milliseconds=250)

log = structlog.get_logger()


async def hold(lock: StateLock, stop: asyncio.Event) -> bool:
    """Acquire `lock`, waiting for it if need be; False, without it, when `stop` is set first. Raises StoreError."""
    waited = False
    while not stop.is_set():
        try:
            lock.acquire()
        except FolderInUseError as exc:
            if not waited:
                log.info("standing-by", text=f"{exc}; until then this one stands by and takes over when it is gone")
            waited = True
        else:
            if waited:
                log.warning("taking-over", text="the aggregator that held the state folder is gone")
            return True
        try:
            async with asyncio.timeout(LOOK_AGAIN.total_seconds()):
                await stop.wait()
        except TimeoutError:
            continue
    return False
