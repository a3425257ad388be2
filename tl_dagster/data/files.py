"""Addresses of images, and reading them: local files, members of archives, and anything that fsspec opens.

An address (``uri``) is text that survives Parquet, logs and HTML whatever the file is called:

- ``/photos/a.jpg``: a local file; ``file:///photos/%FF.jpg`` where its name is not UTF-8 (RFC 8089);
- ``zip://in/a.jpg::/photos.zip``: a member of a zip file, its name percent-encoded, as fsspec chains addresses;
- ``tar://in/a.jpg@512+9031::/photos.tar``: 9,031 bytes from offset 512 of an uncompressed tar file;
- ``s3://bucket/a.jpg``, ``gs://…``, ``https://…``: through fsspec. Its own configuration holds the credentials.
"""

import bz2
import lzma
import os
import stat
import struct
import time
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

from tl_dagster.data.limits import MAX_BYTES, STEP, TooLargeError, check_size, read_bounded
from tl_dagster.data.remote import is_remote, is_web, read_remote, read_remote_head
from tl_dagster.runtime.errors import redact

__all__ = [
    "DAMAGED",
    "change_of",
    "local_uri",
    "name_of",
    "path_of",
    "read",
    "read_head",
    "stamp_of",
    "tar_uri",
    "zip_uri",
]

# A file that changed so recently may change again within the resolution of its time stamp (FAT: 2 s).
SETTLED_SECONDS = 2.0
# Bytes of a zip member asked for at once. Of other methods zipfile unpacks as many packed bytes whole, to some 40 MB.
ZIP_STEP, OTHER_ZIP_STEP = {zipfile.ZIP_STORED: STEP, zipfile.ZIP_DEFLATED: STEP}, 4096
# Errors that zipfile, gzip, bz2, lzma and pandas raise on damaged or encrypted content, beside OSError.
DAMAGED = (ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def local_uri(path: bytes | str | Path) -> str:
    """Return the address of a local file."""
    raw = path if isinstance(path, bytes) else os.fsencode(path)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return f"file://{quote(raw)}"


def zip_uri(member: str, container: str) -> str:
    """Return the address of a zip file's member."""
    return f"zip://{_quoted(member)}::{container}"


def tar_uri(member: str, offset: int, size: int, container: str) -> str:
    """Return the address of the bytes of an uncompressed tar file's member."""
    return f"tar://{_quoted(member)}@{offset}+{size}::{container}"


def path_of(uri: str) -> str:
    """Return the local path of an address."""
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))) if uri.startswith("file://") else uri


def name_of(uri: str) -> str:
    """Return the last part of a file's address, without the query of a URL (a signed one is longer than a name)."""
    path = urlsplit(uri).path if is_web(uri) else path_of(redact(uri).removesuffix("?…"))
    return path.rpartition("/")[2]


def read(uri: str, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes at an address; at most one more than the limit is read.

    Args:
        uri: the address.
        limit: bytes that the file may have.

    Raises:
        OSError: a local file or a container's member is missing or damaged; a remote file is not there.
        TooLargeError: the file is larger than the limit.
        UnreachableError: a server did not answer.
    """
    if uri.startswith("zip://"):
        return _read_zip(uri, limit)
    if uri.startswith("tar://"):
        return _read_tar(uri, limit)
    if is_remote(uri):
        return read_remote(uri, limit)
    local = Path(path_of(uri))
    status = local.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a file")  # the reading of a pipe or device may never end
    check_size(status.st_size, limit)
    with local.open("rb") as file:
        return read_bounded(file, limit)


def read_head(uri: str, size: int) -> bytes:
    """Return the first bytes at an address, at most ``size``; the rest is not read.

    Raises:
        OSError: see :func:`read`.
        UnreachableError: a server did not answer.
    """
    if uri.startswith("zip://"):
        member, container = _split_chain(uri)
        try:
            with _zip(container).open(member) as file:
                return file.read(size)
        except DAMAGED as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
    if uri.startswith("tar://"):
        return _read_tar(uri, size, size)
    if is_remote(uri):
        return read_remote_head(uri, size)
    with Path(path_of(uri)).open("rb") as local:
        return local.read(size)


def _read_zip(uri: str, limit: int) -> bytes:
    member, container = _split_chain(uri)
    try:
        archive = _zip(container)
        info = archive.getinfo(member)
        check_size(max(info.file_size, info.compress_size), limit)
        if info.compress_type == zipfile.ZIP_BZIP2:
            return _unpack_bzip2(container, info)
        with archive.open(info) as file:
            return read_bounded(file, limit, ZIP_STEP.get(info.compress_type, OTHER_ZIP_STEP))
    except TooLargeError:
        raise
    except DAMAGED as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _unpack_bzip2(container: str, info: zipfile.ZipInfo) -> bytes:
    """Return a member's bytes; zipfile would unpack all of it whatever it states, and bzip2 packs 4 GB into 4 kB."""
    with Path(path_of(container)).open("rb") as file:
        file.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
        file.seek(name + extra, os.SEEK_CUR)
        packed = file.read(info.compress_size)
    content = bz2.BZ2Decompressor().decompress(packed, info.file_size + 1)
    if zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename!r}")
    return content


def _read_tar(uri: str, limit: int, most: int | None = None) -> bytes:
    """Return a member's bytes, or the first ``most`` of them."""
    member, container = _split_chain(uri)
    offset, _, whole = member.rpartition("@")[2].partition("+")
    size = int(whole) if most is None else min(int(whole), most)
    check_size(size, limit)
    with Path(path_of(container)).open("rb") as file:
        file.seek(int(offset))
        content = file.read(size)
    if len(content) < size:
        raise OSError(f"the tar file ends {size - len(content)} bytes too early")
    return content


def stamp_of(status: os.stat_result) -> str | None:
    """Return a text that changes when a local file does; None for a file changed within the last two seconds.

    The time of the last change of the inode is part of it: unlike the modification time, no tool sets it back.
    """
    return None if time.time() - status.st_ctime < SETTLED_SECONDS else change_of(status)


def change_of(status: os.stat_result) -> str:
    """Return the size and times of a local file as a text."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _quoted(member: str) -> str:
    return quote(member.encode("utf-8", "surrogateescape"), safe="/ !$&'()*,;=")


def _split_chain(uri: str) -> tuple[str, str]:
    """Return the member's name and the container's address."""
    member, _, container = uri.partition("://")[2].partition("::")
    return unquote_to_bytes(member).decode("utf-8", "surrogateescape"), container


def _zip(container: str) -> zipfile.ZipFile:
    path = path_of(container)
    status = Path(path).stat()
    return _open_zip(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _open_zip(path: str, changed: int, size: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # its members may be read by several threads: it locks the file itself
