"""How the C library keeps memory."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**30
"""Bytes; blocks below this stay with the process once freed."""


def keep_freed_blocks() -> bool:
    """Have glibc keep large freed blocks for the next allocation.

    Otherwise it returns them to the system, and each forward pass on the CPU has to request the memory of its activations page by page.
    docs/results/performance.md has the speedup and the memory that it takes.

    Returns:
        Whether glibc accepted it; other C libraries are not changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _LARGEST))
