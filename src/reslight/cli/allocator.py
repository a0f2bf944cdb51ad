"""How the C library keeps memory."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST = 2**30
"""Bytes; blocks below this stay with the process once freed."""


def keep_freed_blocks() -> bool:
    """Have glibc keep large freed blocks for the next allocation.

    It gives them back to the system otherwise, so that each forward pass on the CPU is handed its activations page by
    page anew. docs/performance.md says what this brings and what memory it takes.

    Returns:
        Whether it does; other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, _LARGEST))
