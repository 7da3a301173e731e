"""What a site holds of the global model: the hidden params, kept equal to the aggregator's bit for bit.

Snapshots are exact and deltas are added after decoding, in the same dtype and order as the aggregator adds them
(QAFeL, arXiv 2308.00263), so equal digests mean equal params.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from fedbus.core.protocol.layout import Layout
from fedbus.tensors import digest as digests
from fedbus.tensors.codec import decode_all_, decode_change_


class Replica:
    """A site's copy of the hidden params: `flat`, float32 [numel], zero until the first snapshot; one model copy.

    After a DecodeError, or when `digest` differs from the version's, `flat` is of no use: load a snapshot.
    """

    def __init__(self, layout: Layout, *, device: torch.device | str = "cpu") -> None:
        self.layout = layout
        self.flat: Tensor = torch.zeros(layout.numel, dtype=torch.float32, device=device)

    @property
    def digest(self) -> str:
        """16 hex digits of the exact bits of `flat`; computed at each call."""
        return digests.digest(self.flat)

    def load_snapshot_(self, frames: Iterable[bytes | memoryview]) -> None:
        """Become the model of a whole snapshot; raises DecodeError."""
        decode_all_(self.flat, frames, self.layout)

    def apply_delta_(self, frames: Iterable[bytes | memoryview]) -> None:
        """Go one version forward by all frames of its delta; raises DecodeError."""
        decode_change_(self.flat, frames, self.layout, add=True)
