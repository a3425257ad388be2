"""Tar files: the members of one that is read where it is, the plain copy of a compressed one, and writing one."""

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from tl_dagster.data.files import DAMAGED, change_of, local_uri, tar_uri
from tl_dagster.data.source_cache import CHUNK, SourceCache
from tl_dagster.data.source_files import SourceRow, as_text, climbs_out
from tl_dagster.runtime.errors import InputError

__all__ = ["CLIMBS", "LINK", "plain_tar", "tar_members", "write_tar"]

CLIMBS = "the member's name climbs out of the archive"
LINK = "a link or device in the archive, not a file"
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}  # by the first two bytes


def tar_members(path: Path, stamp: str, cache: SourceCache, *, folders: bool = False) -> Iterator[SourceRow]:
    """Yield the members of a tar file.

    Args:
        path: the tar file, compressed or not.
        stamp: the tar file's own stamp, which its members share; "" if it has none.
        cache: stores the plain copy of a compressed tar file.
        folders: yield folders too; their paths end with a slash.

    Raises:
        InputError: it is not a tar file, or ends too early.
    """
    plain = plain_tar(path, stamp, cache)
    container = local_uri(plain)
    try:
        with tarfile.open(plain, "r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if not member.isdir():
                    uri = tar_uri(name, member.offset_data, member.size, container)
                    yield SourceRow(as_text(name), uri, stamp or None, _problem(member, name))
                elif folders and name != ".":
                    yield SourceRow(f"{as_text(name)}/", "", None, None)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
            _check_end(plain, archive.offset)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"source.path: {path} is a damaged tar file: {error}; copy it again") from error


def _problem(member: tarfile.TarInfo, name: str) -> str | None:
    if climbs_out(name):
        return CLIMBS
    return None if member.isreg() and not member.issparse() else LINK


def _check_end(path: Path, offset: int) -> None:
    """Refuse a tar file that goes on where tarfile stopped: it takes a broken header for the end."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"a broken header at byte {offset:,}")


def plain_tar(path: Path, stamp: str, cache: SourceCache) -> Path:
    """Return the path of an uncompressed tar file: the file itself, or its unpacked copy in the cache.

    Raises:
        InputError: neither zip nor tar, or the compressed stream is damaged.
    """
    try:
        with tarfile.open(path, "r:"):
            return path
    except tarfile.ReadError:
        pass
    with path.open("rb") as file:
        opener = OPENERS.get(file.read(2))
    if opener is None:
        raise InputError(f"source.path: {path} is not a zip or tar archive (tar.gz, tar.bz2 and tar.xz are read too)")

    def unpack(file: IO[bytes]) -> None:
        try:
            with opener(path, "rb") as packed:
                shutil.copyfileobj(packed, file, CHUNK)
        except (OSError, *DAMAGED) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the archive's
            raise InputError(f"source.path: {path} is damaged: {error}; copy it again") from error

    name = f"{path.name.partition('.')[0]}.tar"
    return cache.file(cache.path(local_uri(path), stamp or change_of(path.stat()), name=name), unpack)


def write_tar(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, content) pairs as an uncompressed tar file."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
