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

MAX_HEADER = 2**18  # bytes of a member's long name and other texts
XZ_MEMORY = 2**28  # bytes; xz itself takes a quarter of this at its highest level

CLIMBS = "the member's name climbs out of the archive"
LINK = "a link or device in the archive, not a file"


class BoundedTarInfo(tarfile.TarInfo):
    """A member whose headers never fill the memory: tarfile reads them whole, whatever size they state.

    It overrides what tarfile calls for each kind of header. Maps of sparse files are skipped: those are not read.
    """

    def _proc_member(self, archive: Any) -> tarfile.TarInfo:
        if self.type in LONG_HEADERS and self.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes before byte {archive.offset:,}")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member

    def _proc_sparse(self, archive: Any) -> tarfile.TarInfo:
        _, goes_on, _ = self._sparse_structs  # type: ignore[attr-defined]
        while goes_on:
            block = archive.fileobj.read(tarfile.BLOCKSIZE)
            goes_on = len(block) == tarfile.BLOCKSIZE and block[504]
        self.sparse = b""
        self.offset_data = archive.fileobj.tell()
        archive.offset = self.offset_data + self._block(self.size)  # type: ignore[attr-defined]
        return self

    def _proc_gnusparse_10(self, following: tarfile.TarInfo, headers: object, archive: object) -> None:
        following.sparse = b""


LONG_HEADERS = {
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
}


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
        with tarfile.open(plain, "r:", tarinfo=BoundedTarInfo) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if not member.isdir():
                    uri = tar_uri(name, member.offset_data, member.size, container)
                    yield SourceRow(as_text(name), uri, stamp or None, _problem(member, name))
                elif folders and name != ".":
                    yield SourceRow(f"{as_text(name)}/", "", None, None)
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
            _check_end(plain, archive.offset)
    except (tarfile.TarError, OSError, *DAMAGED) as error:
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
    with path.open("rb") as file:
        first = file.read(tarfile.BLOCKSIZE)
    if _is_header(first):
        return path
    unpack_from = UNPACKERS.get(first[:2])
    if unpack_from is None:
        raise InputError(f"source.path: {path} is not a zip or tar archive (tar.gz, tar.bz2 and tar.xz are read too)")

    def unpack(file: IO[bytes]) -> None:
        try:
            unpack_from(path, file)
        except (OSError, *DAMAGED) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the archive's
            raise InputError(f"source.path: {path} is damaged: {error}; copy it again") from error

    name = f"{path.name.partition('.')[0]}.tar"
    return cache.file(cache.path(local_uri(path), stamp or change_of(path.stat()), name=name), unpack)


def _is_header(block: bytes) -> bool:
    """Return whether a tar file begins with this block; one of zeros is its end."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return block == bytes(tarfile.BLOCKSIZE)
    return True


def _unpack_gzip(path: Path, file: IO[bytes]) -> None:
    with gzip.open(path, "rb") as packed:
        shutil.copyfileobj(packed, file, CHUNK)


def _unpack_bzip2(path: Path, file: IO[bytes]) -> None:
    with bz2.open(path, "rb") as packed:
        shutil.copyfileobj(packed, file, CHUNK)


def _unpack_xz(path: Path, file: IO[bytes]) -> None:
    """Unpack the streams of a file; lzma.open would give each the memory that it asks for, up to 4 GB."""
    stream = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    with path.open("rb") as packed:
        while chunk := packed.read(CHUNK):
            while chunk or not stream.needs_input:
                if stream.eof:
                    chunk = chunk.lstrip(b"\0")  # between two streams
                    if not chunk:
                        break
                    stream = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
                file.write(stream.decompress(chunk, CHUNK))
                chunk = stream.unused_data
    if not stream.eof:
        raise EOFError("it ends too early")


# By the first two bytes.
UNPACKERS = {b"\x1f\x8b": _unpack_gzip, b"BZ": _unpack_bzip2, b"\xfd7": _unpack_xz}


def write_tar(file: IO[bytes], members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, content) pairs as an uncompressed tar file."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
