"""Memory that a transfer frees stays with the process for the next one, instead of going back to the system.

Frames of a mebibyte come and go by the dozen with every version. glibc gives such blocks back at once, and the system
zeroes every page of the next ones anew: measured, a quarter of the time that 41 MB take over loopback.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT_BYTES = 64 << 20
"""At most so much that is free stays at the end of each of glibc's heaps."""
FROM_HEAP_BYTES = 8 << 20
"""Smaller blocks come from a heap, not from the system one by one."""
_SAID = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Set it for this process, once; whether it was. Where the user has said how malloc is to do it, or the system has
    another malloc, nothing is changed.
    """
    if any(name in os.environ for name in _SAID):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, FROM_HEAP_BYTES)) and bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES))
