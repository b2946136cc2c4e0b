"""The allocator's manners: large buffers are kept, not given back after every step."""

import ctypes
import os
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3), glibc
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@cache
def keep_freed_buffers() -> bool:
    """Ask glibc to hold freed memory for the next allocation. True where that was done.

    By default a freed buffer of some megabytes goes back to the system, which has to clear every
    page of it anew when the next batch wants it. Elsewhere than on glibc, and where the user has
    set up the allocator already, nothing is touched.
    """
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(TRIM_THRESHOLD, 2**31 - 1)) and bool(mallopt(MMAP_THRESHOLD, 1 << 30))
