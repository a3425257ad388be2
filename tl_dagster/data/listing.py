"""Listings: tables with one row per image of a source, before anything is read.

Columns: uri, stamp, label, group, split, problem (str; missing where there is none) and confidence (float64).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tl_dagster.data.skipped import count_skipped, sort_out
from tl_dagster.data.source_files import SPLITS, SourceRow, is_visible
from tl_dagster.runtime.errors import InputError, suggest

__all__ = ["COLUMNS", "build_listing", "label_paths", "list_files", "normalize_names", "parse_splits"]

COLUMNS = ("uri", "stamp", "label", "group", "split", "confidence", "problem")
# The first two folders of a path, and the rest.
TWO_FOLDERS = "(?s)^(?P<a>[^/]*)/?(?P<b>[^/]*)/?(?P<c>.*)$"


def build_listing(rows: Mapping[str, Any] | pd.DataFrame) -> pd.DataFrame:
    """Return a listing from its columns; those that are not there are empty.

    The names of classes and groups are normalized (see :func:`normalize_names`), whatever the source.
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


def normalize_names(names: pd.Series) -> pd.Series:
    """Return names (str) in Unicode's composed form (NFC) and without blanks around them; missing stays missing."""
    composed = pc.utf8_normalize(pa.array(names, pa.large_string(), from_pandas=True), form="NFC")
    return pd.Series(pc.utf8_trim_whitespace(composed), names.index, dtype="str")


def list_files(files: Sequence[SourceRow], pattern: str | None) -> pd.DataFrame:
    """Return the listing of a folder's or archive's files, labelled by their paths.

    Args:
        files: all of them, and empty folders; what is not an image is counted in ``attrs["skipped"]``, not listed.
        pattern: see :func:`label_paths`.
    """
    images, others = sort_out(files)
    columns = {name: pd.Series([getattr(image, name) for image in images], dtype="str") for name in SourceRow._fields}
    labelled = label_paths(columns["path"], pattern)
    problem = columns["problem"].fillna(labelled["problem"])
    frame = build_listing(labelled.assign(uri=columns["uri"], stamp=columns["stamp"], problem=problem))
    folders = [""] * len(others) if pattern is not None else _class_folders([path for path, _ in others], images, frame)
    frame.attrs["skipped"] = count_skipped(others, folders)
    return frame


def _class_folders(paths: Sequence[str], images: Sequence[SourceRow], frame: pd.DataFrame) -> list[str]:
    """Return the class folder of each path, where images show in which folders classes lie; "" where it has none."""
    depth = 1 if frame["split"].notna().any() else 0
    splits = {image.path.partition("/")[0] for image in images} if depth else set()
    parts = [path.split("/") for path in paths]
    names = [each[depth] if len(each) > depth + 1 and (not depth or each[0] in splits) else "" for each in parts]
    return normalize_names(pd.Series([name if is_visible(name) else "" for name in names], dtype="str")).tolist()


def label_paths(paths: pd.Series, pattern: str | None) -> pd.DataFrame:
    """Return label, group, split and problem (why there is no label) of relative POSIX paths.

    Without a pattern, the first folder is the class, or the second one when every first folder is named like a
    split and one of them train: a class may be called "test".

    Args:
        paths: (n,) str; compared in Unicode's composed form, without blanks around their parts.
        pattern: a regular expression with the named group label, and perhaps group and split; None: by folders.

    Raises:
        InputError: the pattern finds a split of an unknown name.
    """
    composed = pc.utf8_normalize(pa.array(paths, pa.large_string(), from_pandas=True), form="NFC")
    trimmed = pc.utf8_trim_whitespace(pc.replace_substring_regex(composed, r"[ \t]*/[ \t]*", "/"))
    paths = pd.Series(trimmed, paths.index, dtype="str")
    if pattern is not None:
        rows = paths.str.extract(pattern).reindex(columns=["label", "group", "split"])
        rows["label"] = rows["label"].where(rows["label"] != "")
        rows["split"] = parse_splits(rows["split"], "source.pattern")
        problem = f"the pattern {pattern} does not match the path"
    else:
        rows = _label_by_folders(paths)
        problem = "lies in no class's folder"
    rows["problem"] = pd.Series(problem, index=rows.index, dtype=object).where(rows["label"].isna(), None)
    return rows.assign(label=rows["label"].fillna(""))


def _label_by_folders(paths: pd.Series) -> pd.DataFrame:
    parts = pc.extract_regex(pa.array(paths, pa.large_string()), TWO_FOLDERS)
    folders = [pd.Series(pc.struct_field(parts, part), paths.index, dtype="str") for part in "abc"]
    first = set(folders[0][folders[1] != ""].str.lower().unique())
    has_splits = bool(first) and first <= set(SPLITS) and "train" in {SPLITS[name] for name in first}
    depth = 1 if has_splits else 0
    label = folders[depth].where(folders[depth + 1] != "")
    split = folders[0].str.lower().map(SPLITS) if has_splits else None
    return pd.DataFrame({"label": label, "group": None, "split": split}, index=paths.index)


def parse_splits(values: pd.Series, where: str) -> pd.Series:
    """Return train, validation or test (str) for the names that people give to splits; missing stays missing.

    Args:
        values: (n,) names.
        where: the file or field, for the message.

    Raises:
        InputError: a name means none of them.
    """
    stripped = values.where(values.notna(), None).astype("str").str.strip()
    lowered = stripped.where(stripped != "", None).str.lower()
    for name in lowered.dropna().unique():
        if name not in SPLITS:
            raise InputError(f"{where}: split '{name}': {suggest(name, SPLITS)}")
    return lowered.map(SPLITS)
