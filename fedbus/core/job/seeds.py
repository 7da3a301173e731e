"""The seed of everything random in a training, its rounding included: from the job's seed and from what it is for.

What lives here: numbers. What may not: generators. A replay and a run in virtual time draw the same as the daemons do.
"""

from __future__ import annotations

import hashlib

from fedbus.core.protocol.messages import UpdateId


def training_seed(job_seed: int, update_id: UpdateId) -> int:
    """Seed of one training: the same for the same job, site and sequence, another for every other."""
    text = f"{job_seed}/{update_id.site}/{update_id.sequence}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
