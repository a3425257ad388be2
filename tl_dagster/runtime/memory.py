"""The allocation of this process's memory."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_REUSED = 2**30  # bytes


def keep_freed_memory() -> None:
    """Make the C library reuse freed memory for the next tensors instead of returning it to the system.

    A network's layers allocate and free some gigabytes a second. By default, glibc maps new pages for each large
    tensor, and the system clears them: the whole then takes 1.5 to 3 times as long on two cores. Calling it again
    changes nothing; with a C library other than glibc it does nothing.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if adjust is not None:
        adjust(M_TRIM_THRESHOLD, 2**31 - 1)
        adjust(M_MMAP_THRESHOLD, LARGEST_REUSED)
