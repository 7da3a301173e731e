from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

SmallFiles = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def small_files() -> SmallFiles:
    """Files of this process cannot grow beyond so many bytes inside the block: a disk that is full, without one."""

    @contextmanager
    def limited(limit_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
