"""What the C library does with memory that a training step frees."""

from __future__ import annotations

import ctypes
import sys

#: Of glibc's ``malloc.h``.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
#: Free memory at the end of the heap that is kept, in bytes: as much as can be said.
KEPT = 2**31 - 1
#: Larger blocks are mapped each for itself, in bytes: the largest number that glibc takes.
MAPPED_FROM = 32 * 2**20


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to :data:`KEPT`, where the C library is glibc.

    By default glibc hands memory back to the system when the activations of a step are freed, and
    the next step faults it in anew, page by page. The peak stays what it was.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT)
        mallopt(MMAP_THRESHOLD, MAPPED_FROM)
