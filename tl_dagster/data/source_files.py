"""The files of a source: the row of one in its listing, and what file names tell."""

import re
from typing import NamedTuple

__all__ = ["SPLITS", "SourceRow", "climbs_out", "is_visible", "may_be_image"]

# The names that people give to splits.
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".avif", ".tif"),
    *(".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico", ".pcx", ".sgi", ".heic", ".heif"),
}
# A part of a path that begins with a dot, or that Windows or macOS leaves in folders and archives.
HIDDEN = re.compile(r"(?:^|/)(?:\.|(?:thumbs\.db|desktop\.ini|__macosx)(?:/|$))", re.IGNORECASE)


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


def may_be_image(path: str) -> bool:
    """Return whether a file may be an image by its name: it has an image's suffix, or none."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")  # not a PurePosixPath: a million names take seconds with it
    return not 0 < dot < len(name) - 1 or name[dot:].lower() in IMAGE_SUFFIXES


def is_visible(path: str) -> bool:
    """Return whether no part of a path is hidden or an operating system's own."""
    return HIDDEN.search(path) is None


def climbs_out(member: str) -> bool:
    """Return whether an archive member's name leads out of the folder that it would be extracted to."""
    parts = member.replace("\\", "/").split("/")
    return member.startswith(("/", "\\")) or ".." in parts or parts[0].endswith(":")
