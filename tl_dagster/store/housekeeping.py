"""Removal of what a store holds and nobody needs any more."""

import contextlib
import time
from dataclasses import dataclass

from tl_dagster.store.layout import StoreLayout

__all__ = ["FreedSpace", "remove_checkpoints"]

ABANDONED_SECONDS = 7 * 86_400.0


@dataclass
class FreedSpace:
    """Rows and bytes that were (or would be) deleted, and columns that a running extraction kept from it."""

    rows: int = 0
    size: int = 0
    busy: int = 0


def remove_checkpoints(layout: StoreLayout, *, dry_run: bool) -> FreedSpace:
    """Delete checkpoints that no run has written to for a week: their training was abandoned.

    Args:
        layout: of the store.
        dry_run: only count.
    """
    freed = FreedSpace()
    for path in layout.checkpoints.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # its training has just ended
            status = path.stat()
            if time.time() - status.st_mtime > ABANDONED_SECONDS:
                freed.size += status.st_size
                if not dry_run:
                    path.unlink()
    return freed
