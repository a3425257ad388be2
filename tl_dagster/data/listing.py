"""Listings: tables with one row per image of a source, before anything is read.

Columns: uri, stamp, label, group, split, problem (str; missing where there is none) and confidence (float64).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tl_dagster.data.labels import normalize_names
from tl_dagster.data.layouts import class_folder, find_split_levels
from tl_dagster.data.path_labels import label_paths
from tl_dagster.data.skipped import count_skipped, sort_out
from tl_dagster.data.source_files import SourceRow, is_visible
from tl_dagster.data.split_names import SplitChoice

__all__ = ["COLUMNS", "build_listing", "list_files"]

COLUMNS = ("uri", "stamp", "label", "group", "split", "confidence", "problem")


def build_listing(rows: Mapping[str, Any] | pd.DataFrame) -> pd.DataFrame:
    """Return a listing from its columns; those that are not there are empty.

    The names of classes and groups are normalized (see :func:`.normalize_names`), whatever the source.
    """
    frame = pd.DataFrame(rows)
    for column in COLUMNS:
        if column not in frame:
            frame[column] = None
    texts = {column: "str" for column in COLUMNS if column != "confidence"}
    frame = frame[list(COLUMNS)].astype({**texts, "confidence": "float64"})
    label, group = normalize_names(frame["label"]).fillna(""), normalize_names(frame["group"])
    problem = frame["problem"].mask((label == "") & frame["problem"].isna(), "has no label")
    return frame.assign(label=label, group=group.where(group != "", None).astype("str"), problem=problem)


def list_files(
    files: Sequence[SourceRow], pattern: str | None, names: Mapping[str, SplitChoice] | None, where: str
) -> pd.DataFrame:
    """Return the listing of a folder's or archive's files, labelled by their paths.

    Args:
        files: all of them, and empty folders; what is not an image is counted in ``attrs["skipped"]``, not listed.
        pattern: see :func:`tl_dagster.data.path_labels.label_paths`.
        names: declared choices for names of splits.
        where: the source, for messages.
    """
    images, others = sort_out(files)
    columns = {name: pd.Series([getattr(image, name) for image in images], dtype="str") for name in SourceRow._fields}
    labelled = label_paths(columns["path"], pattern, names, where)
    problem = columns["problem"].fillna(labelled["problem"])
    frame = build_listing(labelled.assign(uri=columns["uri"], stamp=columns["stamp"], problem=problem))
    folders = [""] * len(others) if pattern is not None else _class_folders(others, images, names, where)
    frame.attrs["skipped"] = count_skipped(others, folders)
    return frame


def _class_folders(
    others: Sequence[tuple[str, str]], images: Sequence[SourceRow], names: Mapping[str, SplitChoice] | None, where: str
) -> list[str]:
    """Return the class folder that each other entry lies in, as the folders of images show; "" where it has none."""
    if not others:
        return []
    levels = find_split_levels(sorted({image.path.rpartition("/")[0] for image in images}), names, where)
    folders = [class_folder(path.rpartition("/")[0], levels, names) or "" for path, _ in others]
    return normalize_names(pd.Series([name if is_visible(name) else "" for name in folders], dtype="str")).tolist()
