"""Local copies of what cannot be read at random where it is: remote archives, compressed tars, tables of image bytes.

Each is fetched or unpacked once, into a plain file of the store that is written under a temporary name and renamed.
Nothing is ever extracted under a member's own name, so no archive can reach out of its folder.
"""

import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from tl_dagster.data.files import local_uri, name_of, path_of, stamp_of
from tl_dagster.data.remote import filesystem, is_remote, remote_stamp, retrying
from tl_dagster.runtime.errors import InputError, printable
from tl_dagster.store.digests import digest
from tl_dagster.store.files import replace_atomically

__all__ = ["SourceCache", "SourceContext", "write_tar"]

T = TypeVar("T")
CHUNK = 2**22  # bytes copied at a time


class SourceCache:
    """The folder of kept copies.

    Args:
        folder: made when first written; safe to delete when nothing runs: what is missing is fetched again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def local(self, uri: str) -> tuple[Path, str]:
        """A container's local path and its stamp; a remote one is fetched when its stamp is new.

        Raises:
            InputError: it is not there, or cannot be fetched.
        """
        stamp = self.stamp(uri)
        if not is_remote(uri):
            return Path(path_of(uri)), stamp
        files, path_there = filesystem(uri)
        # The name keeps its suffix and what it tells of a split.
        path = self.path(uri, stamp, name=name_of(uri)[-100:].strip(".") or "file")
        if not stamp:  # nothing tells whether this is still what is there
            path.unlink(missing_ok=True)

        def fetch(file: IO[bytes]) -> None:
            _ask(uri, lambda: files.get_file(path_there, file.name))  # it opens the file anew, with each attempt

        return self.file(path, fetch), stamp

    def stamp(self, uri: str) -> str:
        """What changes when a container does; "" when nothing tells.

        Raises:
            InputError: it is not there.
        """
        if is_remote(uri):
            files, path = filesystem(uri)
            return _ask(uri, lambda: remote_stamp(files.info(path))) or ""
        local = Path(path_of(uri))
        if not local.is_file():
            raise InputError(f"source.path: no file {printable(uri)}")
        return stamp_of(local.stat()) or ""

    def file(self, path: Path, write: Callable[[IO[bytes]], None]) -> Path:
        """A file of the folder, written when it is not there yet.

        Raises:
            InputError: the disk cannot hold it.
        """
        if path.is_file():
            return path
        try:
            with replace_atomically(path) as temporary, temporary.open("wb") as file:
                write(file)
        except OSError as error:
            if error.errno is None:
                raise  # not the disk's, but of what was to be written
            raise InputError(f"cannot write {path}: {error.strerror or error}; free some space") from error
        return path

    def path(self, *identity: str, name: str) -> Path:
        """Where a copy is kept that is determined by these texts."""
        return self.folder / digest(list(identity))[:32] / name


@dataclass(frozen=True)
class SourceContext:
    """What sources read from.

    Attributes:
        root: the project's root, that relative paths start from.
        kept: local copies of what cannot be read at random.
    """

    root: Path
    kept: SourceCache

    def uri(self, path: str) -> str:
        """The address of a declared path or URL."""
        return path if is_remote(path) else local_uri((self.root / Path(path_of(path)).expanduser()).absolute())


def write_tar(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, content) pairs as an uncompressed tar file."""
    import io

    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _ask(uri: str, ask: Callable[[], T]) -> T:
    try:
        return retrying(ask, uri)
    except OSError as error:
        raise InputError(f"source.path: {printable(uri)} cannot be read: {error}") from error
