"""A digest of the exact bits of a flat vector, the same on every device.

Each tile of words w (the float32 bits as signed integers) becomes sum(w_i * k_i) mod 2**64 with fixed random k_i, the
multilinear hash (Carter and Wegman 1979; Lemire and Kaser 2014): two different tiles collide with probability below
2**-31. The tile sums and the length go through blake2b. It finds accidents, it does not stop a forger.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

_TILE = 1 << 15
_KEYS = hashlib.shake_128(b"fedbus digest 1")


def digest(flat: Tensor) -> str:
    """Return 16 hex digits for `flat`, contiguous float32 [numel] on any device; it is only read."""
    words = flat.detach().view(torch.int32)
    keys = torch.from_numpy(np.frombuffer(_KEYS.digest(8 * _TILE), np.int64).copy()).to(words.device)
    sums = torch.empty(-(-words.numel() // _TILE), dtype=torch.int64, device=words.device)
    product = torch.empty_like(keys)
    for i in range(sums.numel()):
        tile = words[i * _TILE : (i + 1) * _TILE]
        size = tile.numel()
        product[:size].copy_(tile).mul_(keys[:size])
        sums[i] = product[:size].sum()
    whole = hashlib.blake2b(words.numel().to_bytes(8, "little"), digest_size=8)
    whole.update(sums.cpu().numpy().data)
    return whole.hexdigest()
