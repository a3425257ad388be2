"""The listing of Parquet files of image bytes, for :class:`tl_dagster.data.sources.parquet.ParquetSource`."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tl_dagster.data.files import change_of
from tl_dagster.data.listing import build_listing, parse_splits
from tl_dagster.data.source_cache import SourceCache
from tl_dagster.data.source_files import SPLITS
from tl_dagster.data.tar_files import tar_members, write_tar
from tl_dagster.runtime.errors import InputError, suggest

if TYPE_CHECKING:
    from tl_dagster.data.sources.parquet import ParquetSource

__all__ = ["list_parquet"]

BATCH = 256  # rows in memory at once


def list_parquet(source: "ParquetSource", uris: list[str], cache: SourceCache) -> pd.DataFrame:
    """Return one row per row of the files; see :meth:`tl_dagster.data.sources.ImageSource.listing`.

    Args:
        source: names the columns.
        uris: the files.
        cache: stores the copies of image bytes.

    Raises:
        InputError: a file is damaged, lacks a column, or holds something other than image bytes.
    """
    return pd.concat([_list_file(source, uri, cache) for uri in uris], ignore_index=True)


def _list_file(source: "ParquetSource", uri: str, cache: SourceCache) -> pd.DataFrame:
    path, stamp = cache.local(uri)
    try:
        file = pq.ParquetFile(path)
        _check_columns(source, file, path)
        tar = cache.path(uri, stamp or change_of(path.stat()), source.image, name=f"{path.stem}.tar")
        cache.file(tar, lambda opened: write_tar(opened, _images(file, source.image)))
        columns = list(dict.fromkeys(name for name in (source.label, source.group, source.split) if name is not None))
        table = pq.read_table(path, columns=columns).to_pandas(integer_object_nulls=True)
        classes = _class_names(file.schema_arrow, source.label)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"source.path: {path} is a damaged Parquet file: {error}") from error
    members = list(tar_members(tar, stamp, cache))
    labels = table[source.label]
    return build_listing(
        {
            "uri": [member.uri for member in members],
            "stamp": [member.stamp for member in members],
            "label": labels.map(dict(enumerate(classes))) if classes else labels,
            "group": table[source.group] if source.group else None,
            "split": parse_splits(table[source.split], str(path)) if source.split else _split_by_name(path),
        }
    )


def _check_columns(source: "ParquetSource", file: pq.ParquetFile, path: Path) -> None:
    columns = file.schema_arrow.names
    for field in ("image", "label", "group", "split"):
        column = getattr(source, field)
        if column is not None and column not in columns:
            raise InputError(f"source.{field}: {path} has no column '{column}': {suggest(column, columns)}")


def _images(file: pq.ParquetFile, column: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of each row's image; no bytes where the row has none."""
    number = 0
    for batch in file.iter_batches(BATCH, columns=[column]):
        for value in batch.column(0).to_pylist():
            content = value.get("bytes") if isinstance(value, dict) else value
            name = (value.get("path") if isinstance(value, dict) else None) or "image"
            if content is not None and not isinstance(content, bytes):
                raise InputError(f"source.image: column '{column}' holds {type(content).__name__}, not bytes")
            yield f"{number:08d}/{PurePosixPath(name).name}", content or b""
            number += 1


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Return the names that Hugging Face's ``ClassLabel`` gives to a column's numbers, if there are any."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = described.get("info", {}).get("features", {}).get(label, {})
    names: list[str] | None = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return names


def _split_by_name(path: Path) -> str | None:
    return SPLITS.get(path.stem.partition("-")[0].lower())
