"""The files of a source: the row of one in its listing, and what file names tell."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tl_dagster.runtime.errors import InputError, printable

__all__ = [
    "CAMERA_RAW",
    "OTHER_SUFFIXES",
    "SourceRow",
    "as_text",
    "climbs_out",
    "is_visible",
    "may_be_image",
    "refuse_packed",
    "suffix_of",
]

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".avif", ".tif"),
    *(".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico", ".pcx", ".sgi", ".heic", ".heif"),
}
# Not developed yet: what a TIFF's reader finds in many of them is a thumbnail.
CAMERA_RAW = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mos", ".mrw", ".nef", ".nrw"),
    *(".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
}
# What often lies beside images, one to each: not worth opening.
OTHER_SUFFIXES = {
    *(
        ".txt",
        ".md",
        ".rst",
        ".csv",
        ".tsv",
        ".json",
        ".jsonl",
        ".xml",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".cfg",
        ".log",
    ),
    *(".html", ".htm", ".pdf", ".py", ".ipynb", ".sh", ".m", ".mat", ".npy", ".npz", ".pkl", ".pt", ".pth", ".h5"),
    *(".parquet", ".zip", ".tar", ".gz", ".tgz", ".xmp", ".aae", ".svg", ".mp4", ".mov", ".avi", ".db"),
}
# A part of a path that begins with a dot, or that systems, NAS boxes and viewers leave in folders and archives: their
# thumbnails, bins and snapshots.
HIDDEN = re.compile(
    r"(?:^|/)(?:\.|(?:(?:eh)?thumbs\.db|desktop\.ini|icon\r|picasa\.ini|zbthumbnail\.info|__macosx|@eadir|@tmp|@sharebin"
    r"|[@#]recycle|@recently-snapshot|#snapshot|~snapshot|\$recycle\.bin|recycler|system volume information|lost\+found"
    r"|found\.\d{3}|network trash folder|temporary items)(?:/|$))",
    re.IGNORECASE,
)
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # as `surrogateescape` decodes it
PACKED_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz", ".7z", ".rar")


class SourceRow(NamedTuple):
    """A file of a folder or archive.

    Attributes:
        path: relative POSIX path, from which the label is taken.
        uri: address (see :mod:`tl_dagster.data.files`).
        stamp: changes when the file does; None: read it again each time.
        problem: why it cannot be used; None: nothing is known against it.
    """

    path: str
    uri: str
    stamp: str | None
    problem: str | None


def as_text(name: bytes | str) -> str:
    """Return a file's or member's name, with those bytes percent-encoded that are not UTF-8."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_UTF8.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", raw.decode("utf-8", "surrogateescape"))


def suffix_of(path: str) -> str:
    """Return a file's suffix in lower case, with its dot; "" where it has none."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")  # not a PurePosixPath: a million names take seconds with it
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def may_be_image(path: str) -> bool:
    """Return whether a file may be an image by its name: it has an image's suffix, or none."""
    suffix = suffix_of(path)
    return not suffix or suffix in IMAGE_SUFFIXES


def is_visible(path: str) -> bool:
    """Return whether no part of a path is hidden or an operating system's own."""
    return HIDDEN.search(path) is None


def climbs_out(member: str) -> bool:
    """Return whether an archive member's name leads out of the folder that it would be extracted to."""
    parts = member.replace("\\", "/").split("/")
    return member.startswith(("/", "\\")) or ".." in parts or parts[0].endswith(":")


def refuse_packed(files: Sequence[SourceRow], where: str | Path) -> None:
    """Refuse a folder or archive that holds archives and no image.

    Raises:
        InputError: it does; with the first archive, and how to declare it.
    """
    paths = [file.path for file in files if is_visible(file.path) and not file.path.endswith("/")]
    packed = [path for path in paths if path.lower().endswith(PACKED_SUFFIXES)]
    # A file without a suffix beside the archives, such as README, is not an image.
    if packed and not any(may_be_image(path) and ("/" in path or "." in path) for path in paths):
        raise InputError(
            f"source.path: {where} holds no images, but archives, such as {printable(packed[0])}; declare one of them "
            "as kind: archive (unpack an archive of archives first)"
        )
