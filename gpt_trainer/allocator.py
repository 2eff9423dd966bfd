"""Let the C library keep memory that a training step frees, because the next step takes it again.

By default glibc returns large blocks to the system at once, and every step pays for some ten thousand page faults: a
sixth of its time at the laptop preset. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3)'s parameters in malloc.h
_KEPT = 2**30
_LARGEST_ON_HEAP = 2**25  # glibc's own upper bound; larger blocks are rare and stay separate mappings


def keep_freed_memory() -> None:
    """From now on, freed memory stays with this process until :func:`release_freed_memory`."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP)


def release_freed_memory() -> None:
    """Give everything that is not in use back to the system: between trials, so that none inherits another's size."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
