"""A zip or tar archive of class folders, read where it is: nothing is extracted."""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import Field

from tl_dagster.data.files import DAMAGED, as_text, change_of, local_uri, path_of, tar_uri, zip_uri
from tl_dagster.data.remote import is_remote
from tl_dagster.data.source_cache import CHUNK, SourceCache, SourceContext
from tl_dagster.data.sources.base import CLIMBS, SPLITS, Patterned, SourceRow, climbs_out, is_visible, may_be_image
from tl_dagster.runtime.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["ArchiveSource", "plain_tar", "tar_members"]

LINK = "a link or device in the archive, not a file"
ENCRYPTED = "encrypted; pack the archive without a password"


class ArchiveSource(Patterned):
    """A zip, tar, tar.gz, tar.bz2 or tar.xz of one folder per class, or of train, val and test folders of such."""

    kind: Literal["archive"]
    path: str = Field(description="The archive, relative to the project's root; or s3://, gs://, https://.")
    pattern: str | None = Field(
        None, description="Regular expression searched in each member's path, as in a folder source."
    )

    def where(self, place: SourceContext) -> str:
        """The archive."""
        return printable(place.uri(self.path))

    def signature(self, place: SourceContext) -> object:
        """The archive's own stamp."""
        return place.kept.stamp(place.uri(self.path))

    def present(self, place: SourceContext) -> bool:
        """See :meth:`ImageSource.present`."""
        uri = place.uri(self.path)
        return is_remote(uri) or Path(path_of(uri)).is_file()

    def listing(self, place: SourceContext) -> "pd.DataFrame":
        """See :meth:`ImageSource.listing`."""
        path, stamp = place.kept.local(place.uri(self.path))
        members = _zip_members(path) if _is_zip(path) else tar_members(path, stamp, place.kept)
        return self.tabled(_below_one_folder([row for row in members if is_visible(row[0]) or row[3]]))


def _below_one_folder(rows: list[SourceRow]) -> list[SourceRow]:
    """Archives often hold one folder that holds everything: leave its name out, unless it is that of a split."""
    paths = [path for path, _, _, problem in rows if "/" in path and problem is None and may_be_image(path)]
    tops = {path.partition("/")[0] for path in paths}
    if len(tops) != 1 or min(tops).lower() in SPLITS or all(path.count("/") < 2 for path in paths):
        return rows
    top = f"{tops.pop()}/"
    return [(path.removeprefix(top), uri, stamp, problem) for path, uri, stamp, problem in rows]


def _is_zip(path: Path) -> bool:
    # By its beginning: zipfile.is_zipfile also takes a tar that ends with a zip file for one.
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"PK\3\4", b"PK\5\6")
    except OSError as error:
        raise InputError(f"source.path: {path} cannot be read: {error.strerror or error}") from error


def _zip_members(path: Path) -> Iterator[SourceRow]:
    """The members of a zip file; each one's own checksum is its stamp."""
    container = local_uri(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
    except (OSError, *DAMAGED) as error:
        raise InputError(f"source.path: {path} is a damaged zip file: {error}; copy it anew") from error
    for name, member in members.items():  # of several under one name, the last one counts
        stamp = f"{member.CRC}:{member.file_size}:{member.compress_size}:{member.date_time}"
        yield name, zip_uri(name, container), stamp, _zip_problem(member)


def _zip_problem(member: zipfile.ZipInfo) -> str | None:
    if climbs_out(member.filename):
        return CLIMBS
    if stat.S_ISLNK(member.external_attr >> 16):
        return LINK
    return ENCRYPTED if member.flag_bits & 1 else None


def tar_members(path: Path, stamp: str, kept: SourceCache) -> Iterator[SourceRow]:
    """The members of a tar file.

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
                if not member.isdir():
                    name = member.name.removeprefix("./")
                    address = tar_uri(name, member.offset_data, member.size, container)
                    yield as_text(name), address, stamp or None, _tar_problem(member, name)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
            _check_end(plain, archive.offset)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"source.path: {path} is a damaged tar file: {error}; copy it anew") from error


def _tar_problem(member: tarfile.TarInfo, name: str) -> str | None:
    if climbs_out(name):
        return CLIMBS
    return None if member.isreg() and not member.issparse() else LINK


def _check_end(path: Path, offset: int) -> None:
    """Refuse a tar file that goes on where tarfile stopped: it takes a broken header for the end."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"a broken header at byte {offset:,}")


def plain_tar(path: Path, stamp: str, kept: SourceCache) -> Path:
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

    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with path.open("rb") as file:
        opener = openers.get(file.read(2))
    if opener is None:
        raise InputError(f"source.path: {path} is no zip or tar archive (tar.gz, tar.bz2 and tar.xz are read too)")

    def unpack(file: IO[bytes]) -> None:
        try:
            with opener(path, "rb") as packed:
                shutil.copyfileobj(packed, file, CHUNK)
        except (OSError, *DAMAGED) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the archive's
            raise InputError(f"source.path: {path} is damaged: {error}; copy it anew") from error

    name = f"{path.name.partition('.')[0]}.tar"
    return kept.file(kept.path(local_uri(path), stamp or change_of(path.stat()), name=name), unpack)
