"""The suites that seal, by name and by their numbers on the wire, see `sealing`. Loads no cryptography."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

SealSuite = Literal["x25519", "mlkem768-x25519"]
X25519, MLKEM768_X25519 = 1, 2
SUITES: Mapping[SealSuite, int] = MappingProxyType({"x25519": X25519, "mlkem768-x25519": MLKEM768_X25519})
