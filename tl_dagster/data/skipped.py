"""The entries of a source that are not looked at, counted by class folder and reason: no class vanishes in silence.

``skipped.parquet`` of a dataset artifact holds the columns label (str; "" outside of class folders), reason, first
(str, path of the first one) and entries (int64; a hidden folder is one, an empty one none).
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tl_dagster.data.decoding import is_image
from tl_dagster.data.files import read_head
from tl_dagster.data.remote import REQUESTS
from tl_dagster.data.source_files import CAMERA_RAW, OTHER_SUFFIXES, SourceRow, is_visible, may_be_image, suffix_of
from tl_dagster.runtime.errors import printable

__all__ = ["HIDDEN", "NAME", "Skipped", "count_skipped", "read_skipped", "sort_out", "write_skipped"]

HIDDEN, EMPTY = "hidden, or a system's own", "an empty folder"
NAME, CONTENT = "not an image by its name", "not an image by its content, and of an unknown suffix"
RAW = "a camera's raw file; develop it to JPEG, PNG or TIFF"
HEAD = 32  # bytes by which a file is recognised
SKIPPED = "skipped.parquet"


class Skipped(NamedTuple):
    """Entries of one class folder that are not looked at for one reason; see the module for the fields."""

    label: str
    reason: str
    first: str
    entries: int


def sort_out(files: Sequence[SourceRow]) -> tuple[list[SourceRow], list[tuple[str, str]]]:
    """Divide what a folder or archive holds into images and what is not looked at.

    A file of an unknown suffix is an image when its first bytes are an image's.

    Args:
        files: all of them; the path of a folder ends with a slash.

    Returns:
        The images, those with a problem included; and the path and reason of everything else.

    Raises:
        UnreachableError: a server did not answer.
    """
    reasons = [_reason(file) for file in files]
    unknown = [number for number, reason in enumerate(reasons) if reason == CONTENT]
    with ThreadPoolExecutor(REQUESTS) as pool:
        for number, image in zip(unknown, pool.map(lambda each: _has_image(files[each].uri), unknown), strict=True):
            reasons[number] = None if image else CONTENT
    images = [file for file, reason in zip(files, reasons, strict=True) if reason is None]
    others = [(file.path, reason) for file, reason in zip(files, reasons, strict=True) if reason is not None]
    if EMPTY in reasons:  # archives and buckets name folders that hold something too
        filled = _parents(files)
        others = [(path, reason) for path, reason in others if path not in filled]
    return images, others


def _reason(file: SourceRow) -> str | None:
    """Return why a file or folder is not looked at; CONTENT: that depends on its bytes; None: it may be an image."""
    if file.problem is None and not is_visible(file.path):
        return HIDDEN
    if file.path.endswith("/"):
        return file.problem or EMPTY
    if may_be_image(file.path):
        return None
    suffix = suffix_of(file.path)
    if suffix in CAMERA_RAW:
        return RAW
    return NAME if file.problem or suffix in OTHER_SUFFIXES else CONTENT


def _has_image(uri: str) -> bool:
    try:
        return is_image(read_head(uri, HEAD))
    except OSError:
        return False


def _parents(files: Sequence[SourceRow]) -> set[str]:
    """Return the paths of all folders that hold something, each with a slash at its end."""
    parents: set[str] = set()
    for file in files:
        folder = file.path.rstrip("/").rpartition("/")[0]
        while folder and f"{folder}/" not in parents:
            parents.add(f"{folder}/")
            folder = folder.rpartition("/")[0]
    return parents


def count_skipped(others: Sequence[tuple[str, str]], labels: Sequence[str]) -> list[Skipped]:
    """Return what is not looked at, counted by class folder and reason, sorted.

    Args:
        others: see :func:`sort_out`.
        labels: the class folder of each; "" where it lies in none.
    """
    first: dict[tuple[str, str], str] = {}
    entries: Counter[tuple[str, str]] = Counter()
    for (path, reason), label in zip(others, labels, strict=True):
        first.setdefault((label, reason), path)
        entries[label, reason] += not path.endswith("/") or reason == HIDDEN
    return [Skipped(*key, printable(path), entries[key]) for key, path in sorted(first.items())]


def write_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    """Write the table into a dataset artifact's folder."""
    table = pd.DataFrame(skipped, columns=list(Skipped._fields))
    table.astype({"label": "str", "reason": "str", "first": "str", "entries": "int64"}).to_parquet(folder / SKIPPED)


def read_skipped(path: Path) -> pd.DataFrame:
    """Return the table of a dataset artifact; the module describes its columns."""
    return pd.read_parquet(path / SKIPPED)
