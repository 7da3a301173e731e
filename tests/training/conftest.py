"""One torch thread per test process, as in a trainer: two on two busy cores are slower. And a site's own tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tasks_of_the_site() -> Iterator[None]:
    """The tasks of `site_package` are installed, here and in the processes that are started."""
    folder = str(Path(__file__).parent / "site_package")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
        yield
