"""Blocks of rows, so that features of many views never fill the memory."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

__all__ = ["BLOCK_BYTES", "Features", "blocks"]

BLOCK_BYTES = 64 * 2**20


class Features(Protocol):
    """Features of views, read when they are indexed: an array, or columns of the feature cache side by side."""

    def __len__(self) -> int:
        """Return the number of views."""

    def __getitem__(self, rows: np.ndarray | slice, /) -> np.ndarray:
        """Rows by position: (n, D), float16 or float32."""


def blocks(count: int, width: int) -> Iterator[slice]:
    """Slices that cover 0 … count, each of at most 64 MiB (or one row) of float32 rows of this width."""
    rows = max(1, BLOCK_BYTES // (4 * width))
    return (slice(first, min(first + rows, count)) for first in range(0, count, rows))
