"""Let glibc's allocator keep the pages of freed tensors: training on a CPU otherwise spends half its time on page faults.

Every activation above 32 MB, or whatever glibc's moving threshold is, is mapped and unmapped anew at each step. With the
thresholds raised a Conv4-64 step over 256 images of 28 × 28 takes 0.12 s instead of 0.28 s (one thread). Memory then
stays with the process up to its peak.
"""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["keep_pages"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_BYTES = (1 << 30, 1 << 25)
"""1 GiB, or 32 MiB where glibc allows no more."""


@cache
def keep_pages() -> bool:
    """Raise the thresholds for this process, once; false where the C library has none (macOS, musl, Windows)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(any(mallopt(which, size) for size in _BYTES) for which in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
