"""The listing of a table of images, for :class:`tl_dagster.data.sources.manifest.ManifestSource`."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from fsspec.utils import infer_compression

from tl_dagster.data.encodings import explain_encoding
from tl_dagster.data.files import DAMAGED
from tl_dagster.data.limits import MAX_TABLE, STEP, TooLargeError, check_size
from tl_dagster.data.listing import build_listing
from tl_dagster.data.path_labels import match_pattern, names_split, split_folders
from tl_dagster.data.single_labels import require_single_labels, several_labels
from tl_dagster.data.split_columns import parse_splits, require_declared_splits
from tl_dagster.data.table_addresses import locate_images, stamp_images, with_slashes
from tl_dagster.runtime.errors import InputError, suggest

if TYPE_CHECKING:
    from tl_dagster.data.sources.manifest import Bins, ManifestSource

__all__ = ["list_table"]


def list_table(source: "ManifestSource", path: Path, base: str) -> pd.DataFrame:
    """Return one row per row of a table; see :meth:`tl_dagster.data.sources.ImageSource.listing`.

    Args:
        source: names the columns.
        path: the local copy of the table.
        base: folder or URL that image paths are relative to.

    Raises:
        InputError: the table cannot be read, or lacks a column or a value.
    """
    table = _read(path, source)
    _check_columns(table, source, path)
    table[source.uri] = with_slashes(table[source.uri].astype("str"), base)
    frame = build_listing(_label_rows(table, source, path))
    frame["uri"] = locate_images(table[source.uri], base)
    if source.split is None and not names_split(source.pattern):
        declared = {getattr(source, field) for field in source.read_fields()}
        require_declared_splits({name: table[name] for name in table.columns if name not in declared}, str(path))
        frame["split"] = split_folders(frame["uri"], source.split_names, str(path))
    stamps = stamp_images(frame["uri"], table[source.uri])
    return frame.assign(stamp=stamps["stamp"], problem=frame["problem"].fillna(stamps["problem"]))


def _check_table_size(path: Path) -> None:
    """Refuse a table that would fill the memory; a small packed file may hold a very large one.

    Raises:
        TooLargeError: it is unpacked larger than the limit.
    """
    if path.suffix.lower() == ".parquet":
        file = pq.ParquetFile(path).metadata
        check_size(sum(file.row_group(number).total_byte_size for number in range(file.num_row_groups)), MAX_TABLE)
        return
    compression = infer_compression(path.name)
    if compression is None:
        check_size(path.stat().st_size, MAX_TABLE)
        return
    with fsspec.open(str(path), "rb", compression=compression) as text:
        size = 0
        while chunk := text.read(STEP):
            size += len(chunk)
            check_size(size, MAX_TABLE)


def _read(path: Path, source: "ManifestSource") -> pd.DataFrame:
    """Return the rows of a table; of a text table, all as texts."""
    separator = source.separator or {".tsv": "\t", ".tab": "\t"}.get(path.suffix.lower(), ",")
    try:
        _check_table_size(path)
        if path.suffix.lower() == ".parquet":
            # Or one empty cell would turn group 1 into group 1.0, and move its images.
            table: pd.DataFrame = pq.ParquetFile(path).read().to_pandas(integer_object_nulls=True)
            return table
        return _read_text(path, separator, source)
    except UnicodeError as error:
        raise InputError(f"{path} cannot be read as a table: {explain_encoding(path, source.encoding)}") from error
    except TooLargeError as error:
        raise InputError(
            f"{path} is {error}; cut it into sources of their own, or keep only its own columns"
        ) from error
    except (OSError, *DAMAGED) as error:
        raise InputError(
            f"{path} cannot be read as a table: {' '.join(str(error).split())}; check `separator` and `columns`, and "
            "quote each value that holds the separator"
        ) from error


def _read_text(path: Path, separator: str, source: "ManifestSource") -> pd.DataFrame:
    """Return the rows of a text table, without blanks around values; none may have more values than columns."""
    options: dict[str, Any] = {
        "sep": r"\s+" if separator == "whitespace" else separator,
        "index_col": False,
        "dtype": "str",
        "keep_default_na": False,
        "na_values": [""],
        "encoding": source.encoding or "utf-8-sig",
        "skipinitialspace": separator not in (" ", "\t", "whitespace"),
        "low_memory": False,
    }
    # Its own reading of the first line: pandas would rename columns that are called alike, or not at all.
    columns = source.columns
    names = columns or pd.read_csv(path, header=None, nrows=1, **options).iloc[0].fillna("").str.strip().tolist()
    twice = {name for name in names if name and names.count(name) > 1}
    if twice:
        raise ValueError(f"two columns are called '{min(twice)}'")
    with warnings.catch_warnings():
        # Of surplus values in the first row, and so perhaps in all, pandas only warns; and drops them.
        warnings.filterwarnings("error", "Length of header", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(path, header=None if columns else 0, names=range(len(names)), **options)
        except pd.errors.ParserWarning as error:
            raise ValueError(f"rows have more values than the {len(names)} columns {', '.join(names)}") from error
    unnamed = [number for number, name in enumerate(names) if number and not name]
    surplus = table[unnamed].notna().any(axis=1)
    if surplus.any():
        raise ValueError(f"row {int(surplus.to_numpy().argmax()) + 1} has a value in a column without a name")
    return pd.DataFrame({name: table[number].str.strip() for number, name in enumerate(names) if name})


def _check_columns(table: pd.DataFrame, source: "ManifestSource", path: Path) -> None:
    """Refuse a table that lacks a column, or the image or label of a row."""
    for field in source.read_fields():
        column = getattr(source, field)
        if column not in table.columns:
            raise InputError(f"source.{field}: {path} has no column '{column}': {suggest(column, table.columns)}")
    if source.pattern is None and table[source.label].map(pd.api.types.is_list_like).any():
        raise several_labels(f"{path}: column '{source.label}' holds lists")
    needed = [source.uri] if source.pattern is not None else [source.uri, source.label]
    if source.pattern is None and path.suffix.lower() != ".parquet":
        _check_quotes(table[source.label], path)
    missing = (table[needed].isna() | (table[needed] == "")).any(axis=1)
    if missing.any():
        row = int(missing.to_numpy().argmax())
        names = " or ".join(f"'{name}'" for name in needed)
        raise InputError(f"{path}: row {row + 1} has an empty {names}; fill it in or remove the row")


def _check_quotes(labels: pd.Series, path: Path) -> None:
    """Refuse a label that goes on over several lines: those rows would vanish in it."""
    broken = labels.str.contains("\n", regex=False).fillna(False)
    if broken.any():
        raise InputError(
            f"{path}: the '{labels.name}' of row {int(broken.to_numpy().argmax()) + 1} goes on over several lines: "
            "close its quotation mark, or double it"
        )


def _label_rows(table: pd.DataFrame, source: "ManifestSource", path: Path) -> pd.DataFrame:
    """Return the columns of a listing that a table itself holds."""
    if source.pattern is not None:
        rows = match_pattern(table[source.uri].astype("str"), source.pattern, source.split_names)
    else:
        rows = table[[]].copy()
        values, bins = table[source.label], source.bins
        rows["label"] = _bin_values(values, bins, path) if bins else values.astype(str)
        require_single_labels(rows["label"], str(path))
        if bins and bins.soft_targets:
            rows["confidence"] = _class_probabilities(values, bins, path)
    if source.group is not None:
        rows["group"] = table[source.group].astype("str").where(table[source.group].notna(), None)
    if source.split is not None:
        rows["split"] = parse_splits(table[source.split], source.split_names, str(path))
    return rows.assign(uri="")


def _bin_values(values: pd.Series, bins: "Bins", path: Path) -> pd.Series:
    """Return the class name of each value; one equal to an edge belongs to the class above it."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any():
        bad = values[numbers.isna()].iloc[0]
        raise InputError(
            f"{path}: label '{bad}' is not a number, and `bins` cuts numbers; remove `bins` or correct the row"
        )
    classes = np.searchsorted(bins.edges, numbers.to_numpy(float), side="right")
    return pd.Series(np.array(bins.names, dtype=object)[classes], index=values.index)


def _class_probabilities(values: pd.Series, bins: "Bins", path: Path) -> pd.Series:
    """Return the probability (float64) of each row's own class, from that of the second of two classes."""
    values = pd.to_numeric(values)  # binning has checked that they are numbers
    outside = values[~values.between(0, 1)]
    if len(outside):
        raise InputError(
            f"{path}: {outside.iloc[0]} is not a probability, but bins.soft_targets takes the column as one; "
            "remove soft_targets"
        )
    second = values >= bins.edges[0]
    return values.where(second, 1 - values).astype(float)
