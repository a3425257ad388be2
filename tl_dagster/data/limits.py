"""Limits of what is read of one input: a file longer than it may be, or than it says, never fills the memory."""

import io
from typing import IO

__all__ = ["MAX_BYTES", "MAX_TABLE", "STEP", "TooLargeError", "append", "check_size", "read_bounded"]

MAX_BYTES = 512 * 2**20  # of one image's file; a larger one would only fill the memory
MAX_TABLE = 512 * 2**20  # of a table of images, unpacked: some five million rows
STEP = 2**20  # bytes asked for at a time


class TooLargeError(OSError, ValueError):
    """A file has more bytes than are read of one."""


def check_size(size: int, limit: int) -> None:
    """Raise :class:`TooLargeError` when a file has more bytes than the limit."""
    if size > limit:
        raise TooLargeError(f"too large: over {limit:,} bytes")


def read_bounded(file: IO[bytes], limit: int, step: int = STEP) -> bytes:
    """Return the rest of a stream; at most one byte more than the limit is read.

    Args:
        file: to read from.
        limit: bytes that it may have.
        step: bytes asked for at a time.

    Raises:
        TooLargeError: it has more.
    """
    content = io.BytesIO()  # grows in place, and gives its bytes without a copy
    while chunk := file.read(min(step, limit + 1 - content.tell())):
        append(content, chunk, limit)
    return content.getvalue()


def append(content: io.BytesIO, chunk: bytes, limit: int) -> None:
    """Add to what was read; raise :class:`TooLargeError` when it is more than the limit."""
    content.write(chunk)
    size = content.tell()
    if size > limit:
        content.close()  # at once: an error keeps what the functions that raised it know
        check_size(size, limit)
