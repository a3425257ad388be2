"""Files that appear whole or not at all, also when the power fails."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_bytes", "replace_atomically", "sync", "used_bytes", "write_atomically"]


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A path to write to, that takes the place of ``path`` when all went well: flushed to the disk, then renamed.

    Raises:
        OSError: the disk's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file to the disk, so that a power cut after the rename that publishes it cannot empty it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    with replace_atomically(path) as temporary:
        temporary.write_bytes(content)


def free_bytes(path: Path) -> int:
    """Bytes free on the disk of a folder that need not be there yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def used_bytes(path: Path) -> int:
    """Bytes of all files under a folder."""
    size = 0
    for each in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # files come and go where a run is writing
            size += 0 if each.is_dir() else each.stat().st_size
    return size
