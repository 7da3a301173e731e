"""How long a test waits for what it knows will come."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

SOON: Final = timedelta(seconds=120)
"""The end of patience with what hangs, and no time that anything takes: a busy machine is no fault of the code."""
