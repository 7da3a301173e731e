"""What glibc does with memory that is free again; other C libraries are left as they are.

Sealing makes of each chunk of 1 MiB another one. By its own rules glibc gives such memory back to the kernel after
each chunk and takes it again for the next, 180 page faults a MiB: that costs more than the cipher.
"""

from __future__ import annotations

import ctypes

KEPT_BYTES = 16 << 20
"""So much freed memory stays with the process at most."""
MAPPED_BYTES = 9 << 20
"""What is larger than any chunk goes back to the kernel as soon as it is free."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_chunks() -> bool:
    """Use freed memory of chunks again, from now on in the whole process; False where that cannot be asked for."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all(
        mallopt(what, size) == 1 for what, size in ((_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_MMAP_THRESHOLD, MAPPED_BYTES))
    )
