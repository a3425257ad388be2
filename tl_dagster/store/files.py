"""Files that appear whole or not at all, also when the power fails; and one clear error where they cannot."""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from tl_dagster.runtime.errors import InputError

__all__ = ["DiskError", "free_bytes", "replace_atomically", "sync", "used_bytes", "write_atomically", "writing"]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # as safetensors words the system's errors


class DiskError(InputError):
    """A file cannot be written: the disk is full or read-only, or the folder is not ours to write."""


@contextlib.contextmanager
def writing(path: Path, where: str = "", hint: str = "") -> Iterator[None]:
    """The door that every write goes through: whatever a library raises when the disk refuses, it is one clear error.

    Args:
        path: the file or folder that is written.
        where: its name in the message; the path itself when empty.
        hint: what else may be done, beside the ordinary mend.

    Raises:
        DiskError: the disk refuses. Other errors pass as they are.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        refusal = _explain_refusal(error, path)
        if refusal is None:
            raise
        raise DiskError(f"cannot write {where or path}: {refusal}{hint}") from error


def _explain_refusal(error: Exception, path: Path) -> str | None:
    """Return why the disk does not write, and the mend; None for an error that has another cause."""
    number, file = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    if match := RUST_ERROR.search(str(error)):
        number = int(match[1])
    if number in FULL:
        return f"{os.strerror(number)}; free some space"
    if number == errno.EROFS or (number and isinstance(file, str | bytes | os.PathLike) and _is_near(file, path)):
        return f"{os.strerror(number)}; make it writable"
    return None


def _is_near(file: str | bytes | os.PathLike[str], path: Path) -> bool:
    """Return whether an error names a file that is written, or a folder that it would lie in."""
    named = Path(os.fsdecode(file))
    return named == path or named in path.parents or path in named.parents or path.parent == named.parent


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A path to write to, that takes the place of ``path`` when all went well: flushed to the disk, then renamed.

    Raises:
        DiskError: the disk refuses; see :func:`writing`.
    """
    with writing(path):
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
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        DiskError: the disk refuses.
    """
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
