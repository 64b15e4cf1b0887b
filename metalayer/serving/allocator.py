"""The C allocator of a server: memory that a request used is kept for the next one.

By default glibc hands large blocks back to the system as soon as they are free, and every forward pass
takes them again, page fault by page fault; and each thread has an arena of its own, so that what one freed
another cannot use. Memory then stays at what the largest requests in hand took, and does not grow.
"""

from __future__ import annotations

import ctypes
import logging
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h
_SETTINGS = {
    _M_TRIM_THRESHOLD: 512 * 2**20,
    _M_MMAP_THRESHOLD: 32 * 2**20,  # the most that glibc takes
    _M_ARENA_MAX: 1,
}

logger = logging.getLogger(__name__)


def keep_memory() -> None:
    """Set glibc's allocator for this process, best before it starts threads; elsewhere it does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or not all(mallopt(name, value) for name, value in _SETTINGS.items()):
        logger.info("the allocator stays as it is: it is not glibc's")
