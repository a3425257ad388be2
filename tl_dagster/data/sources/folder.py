"""A folder with one sub-folder of images per class, on this machine, in a bucket or on a server."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tl_dagster.data.files import filesystem, is_remote, local_uri, path_of, remote_stamp, retrying, shown, stamp_of
from tl_dagster.data.kept import Place
from tl_dagster.data.sources.base import Patterned, may_be_image, named, table_of
from tl_dagster.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FolderSource"]

REQUESTS = 16  # at once, where a server has to be asked for each file


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

    def where(self, place: Place) -> str:
        """The folder."""
        return shown(place.uri(self.path))

    def present(self, place: Place) -> bool:
        """See :meth:`ImageSource.present`."""
        uri = place.uri(self.path)
        return is_remote(uri) or Path(path_of(uri)).is_dir()

    def listing(self, place: Place) -> "pd.DataFrame":
        """See :meth:`ImageSource.listing`."""
        import pandas as pd

        uri = place.uri(self.path)
        found = list(_remote(uri) if is_remote(uri) else self._local(Path(path_of(uri))))
        images = [row for row in found if may_be_image(row[0])]
        rows = pd.DataFrame(images, columns=["path", "uri", "stamp", "problem"]).astype("str")
        labelled = self.labelled(rows["path"])
        problem = rows["problem"].fillna(labelled["problem"])
        frame = table_of(pd.concat([rows[["uri", "stamp"]], labelled.assign(problem=problem)], axis=1))
        frame.attrs["other_files"] = len(found) - len(images)
        return frame

    def _local(self, folder: Path) -> Iterator[tuple[str, str, str | None, str | None]]:
        if not folder.is_dir():
            raise InputError(f"source.path: no folder {folder}; give a folder with one sub-folder of images per class")
        try:
            yield from self._walk(os.fsencode(folder), "", os.fsencode(folder.resolve()), set())
        except OSError as error:
            raise InputError(f"source.path: {folder} cannot be listed: {error.strerror or error}") from error

    def _walk(
        self, folder: bytes, prefix: str, root: bytes, seen: set[tuple[int, int]]
    ) -> Iterator[tuple[str, str, str | None, str | None]]:
        """(relative path, uri, stamp, problem) of the files under a folder; a link's loop is walked once."""
        status = os.stat(folder)  # noqa: PTH116  (bytes)
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            uri = local_uri(entry.path)
            path = prefix + local_uri(entry.name).removeprefix("file://")
            if not named(path.rpartition("/")[2]):
                continue
            outside = entry.is_symlink() and not self.follow_links and not _inside(entry.path, root)
            if outside:
                yield path, uri, None, "a link out of the folder; copy the file, or set source.follow_links: true"
            elif entry.is_dir():
                yield from self._walk(entry.path, f"{path}/", root, seen)
            elif entry.is_file():
                yield path, uri, stamp_of(entry.stat()), None
            elif entry.is_symlink():
                yield path, uri, None, "a link that leads nowhere"


def _inside(link: bytes, root: bytes) -> bool:
    real = os.path.realpath(link)
    return real == root or real.startswith(root + b"/")


def _remote(url: str) -> Iterator[tuple[str, str, str | None, str | None]]:
    files, top = filesystem(url)
    top = top.rstrip("/")
    try:
        found: dict[str, Any] = retrying(lambda: files.find(top, detail=True), url)
    except OSError as error:
        raise InputError(f"source.path: {shown(url)} cannot be listed: {error}") from error
    paths = [path for path in sorted(found) if named(path[len(top) :].lstrip("/")) and not path.endswith("/")]

    def stamp(path: str) -> str | None:
        # A listing over HTTP names files and no more: ask for each one's etag, which is less than the file.
        return remote_stamp(found[path]) or remote_stamp(retrying(lambda: files.info(path), path))

    with ThreadPoolExecutor(REQUESTS) as pool:
        for path, told in zip(paths, pool.map(stamp, paths), strict=True):
            yield path[len(top) :].lstrip("/"), files.unstrip_protocol(path), told, None
