"""A folder with one sub-folder of images per class, on this machine, in a bucket or on a server."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tl_dagster.data.files import local_uri, path_of, stamp_of
from tl_dagster.data.remote import find, is_remote, remote_stamp, remote_stamps
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.source_files import SourceRow, as_text, is_visible, refuse_packed
from tl_dagster.data.sources.base import Patterned
from tl_dagster.runtime.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["FolderSource"]

OUTSIDE = "a link out of the folder; copy the file, or set source.follow_links: true"


class FolderSource(Patterned):
    """A folder with one sub-folder of images per class, or with train, val and test folders of such."""

    kind: Literal["folder"]
    path: str = Field(description="The folder, relative to the project's root; or s3://, gs://, https://.")
    pattern: str | None = Field(
        None,
        description="Regular expression searched in each path below the folder, instead of sub-folders: its group "
        "(?P<label>…) is the class; (?P<group>…) and (?P<split>…) may be named too.",
    )
    follow_links: bool = Field(False, description="Also take files that links out of the folder lead to.")

    def where(self, context: SourceContext) -> str:
        """Return the folder's path or URL."""
        return printable(context.uri(self.path))

    def present(self, context: SourceContext) -> bool:
        """Return whether the folder is still there; see :meth:`ImageSource.present`."""
        uri = context.uri(self.path)
        return is_remote(uri) or Path(path_of(uri)).is_dir()

    def listing(self, context: SourceContext) -> "pd.DataFrame":
        """Return one row per image; see :meth:`ImageSource.listing`."""
        uri = context.uri(self.path)
        files = list(_remote(uri) if is_remote(uri) else self._local(uri))
        refuse_packed(files, printable(uri))
        return self.list_files(files, context)

    def _local(self, uri: str) -> Iterator[SourceRow]:
        folder = Path(path_of(uri))
        if not folder.is_dir():
            raise InputError(
                f"source.path: no folder {printable(uri)}; give a folder with one sub-folder of images per class"
            )
        top = os.fsencode(folder)
        try:
            yield from self._walk(top, len(top.rstrip(b"/")) + 1, os.fsencode(folder.resolve()), frozenset())
        except OSError as error:
            where = printable(local_uri(error.filename or folder))
            raise InputError(f"source.path: {where} cannot be listed: {error.strerror or error}") from error

    def _walk(
        self, folder: bytes, prefix: int, root: bytes, parents: frozenset[tuple[int, int]]
    ) -> Iterator[SourceRow]:
        """Yield the files under a folder, and folders that are empty or not entered; their paths end with a slash.

        A link to a folder above it is not followed.

        Args:
            folder: to list.
            prefix: length in bytes of the path of the source's folder, to leave out.
            root: the source's folder itself, that links must not leave.
            parents: device and inode of the folders above.
        """
        status = os.stat(folder)  # noqa: PTH116  (bytes)
        identity = (status.st_dev, status.st_ino)
        if identity in parents:
            return
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        if not ordered and len(folder) > prefix:
            yield SourceRow(f"{as_text(folder[prefix:])}/", "", None, None)
        for entry in ordered:
            path, link = as_text(entry.path[prefix:]), entry.is_symlink()
            if not is_visible(path):
                yield SourceRow(path, local_uri(entry.path), None, None)
            elif link and not self.follow_links and not _inside(entry.path, root):
                yield SourceRow(path, local_uri(entry.path), None, OUTSIDE)
                if os.path.isdir(entry.path):  # noqa: PTH112  (bytes)
                    yield SourceRow(f"{path}/", "", None, OUTSIDE)
            # Of a link that leads to itself, the entry's own is_dir() raises an error.
            elif os.path.isdir(entry.path) if link else entry.is_dir():  # noqa: PTH112  (bytes)
                yield from self._walk(entry.path, prefix, root, parents | {identity})
            elif row := _file(path, entry):
                yield row


def _inside(link: bytes, root: bytes) -> bool:
    real = os.path.realpath(link)
    return real == root or real.startswith(root.rstrip(b"/") + b"/")


def _file(path: str, entry: os.DirEntry[bytes]) -> SourceRow | None:
    """Return the row of a file; None for a pipe, socket or device, whose reading may never end."""
    uri = local_uri(entry.path)
    try:
        status = entry.stat()
    except OSError as error:
        problem = "a link that leads nowhere" if entry.is_symlink() else f"cannot be read: {error.strerror}"
        return SourceRow(path, uri, None, problem)
    return SourceRow(path, uri, stamp_of(status), None) if stat.S_ISREG(status.st_mode) else None


def _remote(url: str) -> Iterator[SourceRow]:
    try:
        files = [(path, uri, remote_stamp(info)) for path, uri, info in find(url)]
    except OSError as error:
        raise InputError(f"source.path: {printable(url)} cannot be listed: {error}") from error
    # A listing over HTTP names files and no more: request the etag of each, which is less than the file.
    unstamped = [uri for path, uri, stamp in files if stamp is None and not path.endswith("/") and is_visible(path)]
    stamps = dict(zip(unstamped, remote_stamps(unstamped), strict=True))
    for path, uri, stamp in files:
        yield SourceRow(path, uri, *stamps.get(uri, (stamp, None)))
