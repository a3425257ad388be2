"""A zip or tar archive of class folders, read where it is: nothing is extracted."""

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import Field

from tl_dagster.data.files import is_remote, local_uri, path_of, shown, tar_uri, zip_uri
from tl_dagster.data.kept import CHUNK, Kept, Place
from tl_dagster.data.sources.base import CLIMBS, Patterned, climbs_out, may_be_image, named, table_of
from tl_dagster.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ArchiveSource", "plain_tar", "tar_members"]

Row = tuple[str, str, str | None, str | None]


class ArchiveSource(Patterned):
    """A zip, tar, tar.gz, tar.bz2 or tar.xz of one folder per class, or of train, val and test folders of such."""

    kind: Literal["archive"]
    path: str = Field(description="The archive, relative to the project's root; or s3://, gs://, https://.")
    pattern: str | None = Field(
        None, description="Regular expression searched in each member's path, as in a folder source."
    )

    def where(self, place: Place) -> str:
        """The archive."""
        return shown(place.uri(self.path))

    def signature(self, place: Place) -> object:
        """The archive's own stamp."""
        return place.kept.stamp(place.uri(self.path))

    def present(self, place: Place) -> bool:
        """See :meth:`ImageSource.present`."""
        uri = place.uri(self.path)
        return is_remote(uri) or Path(path_of(uri)).is_file()

    def listing(self, place: Place) -> "pd.DataFrame":
        """See :meth:`ImageSource.listing`."""
        import pandas as pd

        path, stamp = place.kept.local(place.uri(self.path))
        members = _zip_members(path) if zipfile.is_zipfile(path) else tar_members(path, stamp, place.kept)
        found = [row for row in members if named(row[0]) or row[3]]
        images = [row for row in found if may_be_image(row[0])]
        rows = pd.DataFrame(images, columns=["path", "uri", "stamp", "problem"]).astype("str")
        labelled = self.labelled(_below_one_folder(rows["path"]))
        frame = table_of(
            pd.concat(
                [rows[["uri", "stamp"]], labelled.assign(problem=rows["problem"].fillna(labelled["problem"]))], axis=1
            )
        )
        frame.attrs["other_files"] = len(found) - len(images)
        return frame


def _below_one_folder(paths: "pd.Series[str]") -> "pd.Series[str]":
    """Archives often hold one folder that holds everything: leave its name out."""
    tops = paths.str.partition("/")
    if len(paths) and tops[0].nunique() == 1 and tops[2].str.contains("/", regex=False).any():
        return tops[2]
    return paths


def _zip_members(path: Path) -> Iterator[Row]:
    """(path, uri, stamp, problem) of a zip file's members; each one's own checksum is its stamp."""
    container = local_uri(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    stamp = f"{member.CRC}:{member.file_size}:{member.compress_size}:{member.date_time}"
                    problem = CLIMBS if climbs_out(member.filename) else None
                    yield member.filename, zip_uri(member.filename, container), stamp, problem
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"source.path: {path} is a damaged zip file: {error}") from error


def tar_members(path: Path, stamp: str, kept: Kept) -> Iterator[Row]:
    """(path, uri, stamp, problem) of a tar file's members.

    Args:
        path: the tar file, compressed or not.
        stamp: the tar file's own stamp, which its members share; "" for one that has none.
        kept: where a compressed tar is unpacked to a plain one.

    Raises:
        InputError: it is no tar file, or ends too early.
    """
    plain = plain_tar(path, stamp, kept)
    container = local_uri(plain)
    try:
        with tarfile.open(plain, "r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                name = member.name.removeprefix("./")
                problem = CLIMBS if climbs_out(name) else None
                if not member.isreg():
                    problem = "a link or device in the archive, not a file"
                yield name, tar_uri(name, member.offset_data, member.size, container), stamp or None, problem
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"source.path: {path} is a damaged tar file: {error}; copy it anew") from error


def plain_tar(path: Path, stamp: str, kept: Kept) -> Path:
    """The path of an uncompressed tar: the file itself, or its unpacked copy in the store.

    Raises:
        InputError: neither zip nor tar, or the compressed stream is damaged.
    """
    try:
        with tarfile.open(path, "r:"):
            return path
    except tarfile.ReadError:
        pass
    import bz2
    import gzip
    import lzma
    import shutil
    import zlib

    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with path.open("rb") as file:
        opener = openers.get(file.read(2))
    if opener is None:
        raise InputError(f"source.path: {path} is no zip or tar archive (tar.gz, tar.bz2 and tar.xz are read too)")

    def unpack(file: IO[bytes]) -> None:
        try:
            with opener(path, "rb") as packed:
                shutil.copyfileobj(packed, file, CHUNK)
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the archive's
            raise InputError(f"source.path: {path} is damaged: {error}; copy it anew") from error

    name = f"{path.name.partition('.')[0]}.tar"
    return kept.file(kept.path(local_uri(path), stamp or str(path.stat().st_mtime_ns), name=name), unpack)
