"""How this process's memory is allocated."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 2**30  # bytes


def keep_freed_memory() -> None:
    """Have tensors freed in one step given to the next, instead of back to the system; called again, it does nothing.

    A network's layers allocate and free some gigabytes a second. By default, glibc maps each large tensor anew, and the
    system clears its pages: that takes longer than the layers themselves, 1.5 to 3 times in all on two cores. Where the
    C library is another, nothing happens.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if adjust is not None:
        adjust(M_TRIM_THRESHOLD, 2**31 - 1)
        adjust(M_MMAP_THRESHOLD, LARGEST_KEPT)
