"""Classes, groups and splits that the paths of images name."""

import os
import re
from collections.abc import Mapping

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tl_dagster.data.labels import normalize_names
from tl_dagster.data.layouts import FolderRole, read_layout
from tl_dagster.data.split_columns import parse_splits
from tl_dagster.data.split_names import ANY, SplitChoice, holds_splits
from tl_dagster.runtime.errors import InputError

__all__ = ["label_paths", "match_pattern", "names_split", "split_folders"]

FOLDERS = "(?s)^(?P<folder>(?P<first>[^/]*)(?:/.*)?)/[^/]*$"  # all that hold a file, and the first
FEW = 100  # paths
WORDS = "(?P<first>[A-Za-z]*)[^/]*?(?P<last>[A-Za-z]*)(?:[.][^./]*)?$"  # that a file's name begins and ends with


def label_paths(
    paths: pd.Series, pattern: str | None, names: Mapping[str, SplitChoice] | None, where: str
) -> pd.DataFrame:
    """Return label, group, split and problem (why there is no label) of relative POSIX paths.

    Without a pattern, folders are read as :mod:`tl_dagster.data.layouts` describes. A pattern that names no split
    leaves it to the folders.

    Args:
        paths: (n,) str; compared in Unicode's composed form, without blanks around their parts.
        pattern: a regular expression with the named group label, and perhaps group and split; None: by folders.
        names: declared choices for names of splits.
        where: the source, for messages.

    Raises:
        InputError: the pattern finds a split of an unknown name, or it is unclear which folders are splits.
    """
    paths = normalize_names(paths).str.replace(r"[ \t]*/[ \t]*", "/", regex=True)
    if pattern is None:
        rows = _read_folders(paths, names, where, labelled=False).assign(group=None)
        problem = pd.Series("lies in no class's folder", index=rows.index, dtype=object)
        return rows.assign(label=rows["label"].fillna(""), problem=problem.where(rows["label"].isna(), None))
    rows = match_pattern(paths, pattern, names)
    if not names_split(pattern):
        rows["split"] = split_folders(paths[rows["problem"].isna()], names, where)
    return rows


def names_split(pattern: str | None) -> bool:
    """Return whether a pattern has a group for the split."""
    return pattern is not None and "split" in re.compile(pattern).groupindex


def match_pattern(paths: pd.Series, pattern: str, names: Mapping[str, SplitChoice] | None) -> pd.DataFrame:
    """Return the label, group, split and problem that a pattern finds in paths; see :func:`label_paths`."""
    rows = paths.str.extract(pattern).reindex(columns=["label", "group", "split"])
    found = rows["label"].notna() & (rows["label"] != "")
    problem = pd.Series(f"the pattern {pattern} does not match the path", index=rows.index, dtype=object)
    return rows.assign(
        label=rows["label"].where(found, ""),
        split=parse_splits(rows["split"], names, "source.pattern"),
        problem=problem.where(~found, None),
    )


def split_folders(paths: pd.Series, names: Mapping[str, SplitChoice] | None, where: str) -> pd.Series:
    """Return the split (str) that each path's folders name; missing for all where they name none.

    Args:
        paths: (n,) str, POSIX paths or URLs whose labels come from elsewhere.
        names: declared choices for names of splits.
        where: the source, for messages.

    Raises:
        InputError: it is unclear which folders are splits.
    """
    # Folders that hold all images tell none of them from another. (commonpath takes no URLs beside paths.)
    common = os.path.commonprefix([paths.min(), paths.max()]) if len(paths) else ""  # noqa: RUF071
    below = paths.str.slice(common.rfind("/") + 1)
    return _read_folders(below, names, where, labelled=True)["split"]


def _read_folders(
    paths: pd.Series, names: Mapping[str, SplitChoice] | None, where: str, *, labelled: bool
) -> pd.DataFrame:
    """Return label and split (str) of each path; each distinct folder is looked at once."""
    folders, first = pc.extract_regex(pa.array(paths, pa.large_string()), FOLDERS).flatten()
    if not (names or pc.any(pc.match_substring_regex(folders, ANY.pattern, ignore_case=True)).as_py()):
        _require_no_splits_in_names(paths, names, where)
        return pd.DataFrame({"label": pd.Series(first, dtype="str"), "split": None}, dtype="str").set_index(paths.index)
    codes, distinct = pd.factorize(pd.Series(folders, dtype="str").fillna(""))
    roles = pd.DataFrame(read_layout(list(distinct), names, where, labelled=labelled), columns=list(FolderRole._fields))
    if roles["split"].isna().all():
        _require_no_splits_in_names(paths, names, where)
    return roles.astype("str").take(codes).set_index(paths.index)


def _require_no_splits_in_names(paths: pd.Series, names: Mapping[str, SplitChoice] | None, where: str) -> None:
    """Refuse images all of whose own names begin (or end) with a split, as in ``cat/train_0001.png``."""
    for position in ("first", "last"):
        few = _words(paths.head(FEW), position)
        if not holds_splits("", [*few, "train", "test"]):
            continue
        distinct = sorted(_words(paths, position) - set(names or {}))
        if holds_splits("", distinct):
            raise InputError(
                f"{where}: the names of all images hold splits ({', '.join(distinct)}); declare a source.pattern with "
                "(?P<split>…) and (?P<label>…), a column of splits, or source.split_names with none for each if they "
                "are not splits"
            )


def _words(paths: pd.Series, position: str) -> set[str]:
    """Return the distinct words that the names of files begin or end with ("first", "last")."""
    words = pc.struct_field(pc.extract_regex(pa.array(paths, pa.large_string()), WORDS), position)
    return set(words.unique().to_pylist())
