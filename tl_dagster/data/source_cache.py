"""Local copies of what cannot be read at random where it is: remote archives, compressed tars, tables of image bytes.

Each is fetched or unpacked once, into a plain file of the store that is written under a temporary name and renamed.
Nothing is ever extracted under a member's own name, so no archive can reach out of its folder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from tl_dagster.data.files import local_uri, name_of, path_of, stamp_of
from tl_dagster.data.remote import filesystem, is_remote, remote_stamp, retrying
from tl_dagster.runtime.errors import InputError, printable
from tl_dagster.store.digests import digest
from tl_dagster.store.files import replace_atomically, writing

__all__ = ["CHUNK", "SourceCache", "SourceContext"]

T = TypeVar("T")
CHUNK = 2**22  # bytes copied at a time


class SourceCache:
    """The folder of local copies.

    Args:
        folder: made when first written; safe to delete when nothing runs: what is missing is fetched again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def local(self, uri: str) -> tuple[Path, str]:
        """Return a container's local path and its stamp; a remote one is fetched when its stamp is new.

        Raises:
            InputError: it is not there, or cannot be fetched.
        """
        stamp = self.stamp(uri)
        if not is_remote(uri):
            return Path(path_of(uri)), stamp
        files, remote_path = filesystem(uri)
        # The name keeps its suffix, and the split that it may be named after.
        path = self.path(uri, stamp, name=name_of(uri)[-100:].strip(".") or "file")
        if not stamp:  # nothing tells whether the copy is still up to date
            path.unlink(missing_ok=True)

        def fetch(file: IO[bytes]) -> None:
            def attempt() -> None:  # opens the file again
                with writing(path):
                    files.get_file(remote_path, file.name)

            _request(uri, attempt)

        return self.file(path, fetch), stamp

    def stamp(self, uri: str) -> str:
        """Return a text that changes when a container does; "" when the server sends nothing of the kind.

        Raises:
            InputError: it is not there.
        """
        if is_remote(uri):
            files, path = filesystem(uri)
            return _request(uri, lambda: remote_stamp(files.info(path))) or ""
        local = Path(path_of(uri))
        if not local.is_file():
            raise InputError(f"source.path: no file {printable(uri)}")
        return stamp_of(local.stat()) or ""

    def file(self, path: Path, write: Callable[[IO[bytes]], None]) -> Path:
        """Return the path of a file in the folder, written when it is not there yet.

        Raises:
            DiskError: the disk cannot hold it.
        """
        if not path.is_file():
            with replace_atomically(path) as temporary, temporary.open("wb") as file:
                write(file)
        return path

    def path(self, *identity: str, name: str) -> Path:
        """Return the path of the copy that these texts determine."""
        return self.folder / digest(list(identity))[:32] / name


@dataclass(frozen=True)
class SourceContext:
    """Everything a source needs while it is listed.

    Attributes:
        root: the project's root, from which relative paths start.
        cache: local copies of what cannot be read at random.
    """

    root: Path
    cache: SourceCache

    def uri(self, path: str) -> str:
        """Return the address of a declared path or URL."""
        return path if is_remote(path) else local_uri((self.root / Path(path_of(path)).expanduser()).absolute())


def _request(uri: str, ask: Callable[[], T]) -> T:
    try:
        return retrying(ask, uri)
    except OSError as error:
        raise InputError(f"source.path: {printable(uri)} cannot be read: {error}") from error
