"""The listing of Parquet files of image bytes, for :class:`tl_dagster.data.sources.parquet.ParquetSource`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tl_dagster.data.files import change_of
from tl_dagster.data.listing import build_listing
from tl_dagster.data.shard_splits import find_shard_splits
from tl_dagster.data.single_labels import require_single_labels, several_labels
from tl_dagster.data.skipped import count_skipped
from tl_dagster.data.source_cache import SourceCache
from tl_dagster.data.source_files import SourceRow
from tl_dagster.data.split_columns import parse_splits, require_declared_splits
from tl_dagster.data.split_names import IGNORED, LEFT_OUT, may_name_splits
from tl_dagster.data.tar_files import tar_members, write_tar
from tl_dagster.runtime.errors import InputError, printable, suggest

if TYPE_CHECKING:
    from tl_dagster.data.sources.parquet import ParquetSource

__all__ = ["list_parquet"]

BY_PATH = "\0split"  # a column that no file has
BATCH = 256  # rows in memory at once,
BATCH_BYTES = 2**26  # and of what size at most: every row may be as large as its whole column chunk, repeated
BUFFER = 2**20  # bytes read at a time; without it, a whole chunk is
BOMB = 100  # times its size on the disk: images hardly get smaller by packing
NO_BYTES = "holds no image, but perhaps its path; write the bytes into the files, or declare kind: manifest"


def list_parquet(source: "ParquetSource", declared: str, uris: list[str], cache: SourceCache) -> pd.DataFrame:
    """Return one row per row of the files; see :meth:`tl_dagster.data.sources.ImageSource.listing`.

    Args:
        source: names the columns.
        declared: the address that they were found under.
        uris: the files.
        cache: stores the copies of image bytes.

    Raises:
        InputError: a file is damaged, lacks a column, or holds something other than image bytes.
    """
    named = [None] * len(uris) if source.split else find_shard_splits(declared, uris, source.split_names)
    read = [(uri, split) for uri, split in zip(uris, named, strict=True) if split != IGNORED]
    if not read:
        return build_listing({})
    tables = [_read_columns(source, cache.local(uri)[0]).assign(**{BY_PATH: split}) for uri, split in read]
    table = pd.concat(tables, ignore_index=True)
    require_single_labels(table[source.label], printable(declared))
    if source.split is not None:
        splits = parse_splits(table[source.split], source.split_names, printable(declared))
    else:
        splits = table[BY_PATH]
        if not any(named):
            columns = set(table.columns) - {source.label, source.group, BY_PATH}
            require_declared_splits({name: table[name] for name in sorted(columns)}, printable(declared))
    images = [image for uri, _ in read for image in _copy_images(source, uri, cache)]  # the long part
    frame = build_listing(
        {
            "uri": [image.uri for image in images],
            "stamp": [image.stamp for image in images],
            "label": table[source.label],
            "group": table[source.group] if source.group else None,
            "split": splits,
        }
    )
    frame["problem"] = frame["problem"].mask(frame["uri"].str.contains(r"@\d+\+0::"), NO_BYTES)
    left_out = [(uri, LEFT_OUT) for uri, split in zip(uris, named, strict=True) if split == IGNORED]
    frame.attrs["skipped"] = count_skipped(left_out, [""] * len(left_out))
    return frame


def _read_columns(source: "ParquetSource", path: Path) -> pd.DataFrame:
    """Return the columns of labels (by their names), groups and splits, and others that may hold splits.

    Raises:
        InputError: the file is damaged, lacks a column, or has several labels for each image.
    """
    with _damage(path):
        schema = pq.ParquetFile(path).schema_arrow
        _check_columns(source, schema, path)
        columns = [name for name in (source.label, source.group, source.split) if name is not None]
        flat = [field.name for field in schema if not pa.types.is_nested(field.type) and field.name != source.image]
        columns += [name for name in flat if may_name_splits(name)]
        table: pd.DataFrame = pq.read_table(path, columns=list(dict.fromkeys(columns))).to_pandas(
            integer_object_nulls=True
        )
        classes = _class_names(schema, source.label)
    if classes:
        table[source.label] = table[source.label].map(dict(enumerate(classes)))
    return table


def _copy_images(source: "ParquetSource", uri: str, cache: SourceCache) -> list[SourceRow]:
    """Return the rows of a file's images, copied into a tar file unless they are there."""
    path, stamp = cache.local(uri)
    with _damage(path):
        tar = cache.path(uri, stamp or change_of(path.stat()), source.image, name=f"{path.stem}.tar")
        cache.file(tar, lambda opened: write_tar(opened, _images(path, source.image)))
    return list(tar_members(tar, stamp, cache))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn the errors that a damaged file raises into one that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"source.path: {path} is a damaged Parquet file: {error}") from error


def _check_columns(source: "ParquetSource", schema: pa.Schema, path: Path) -> None:
    for field in ("image", "label", "group", "split"):
        column = getattr(source, field)
        if column is not None and column not in schema.names:
            raise InputError(f"source.{field}: {path} has no column '{column}': {suggest(column, schema.names)}")
    if pa.types.is_nested(schema.field(source.label).type):
        raise several_labels(f"source.label: {path}: column '{source.label}' holds lists")


def _count_batch_rows(file: pq.ParquetFile, column: str, path: Path) -> int:
    """Return how many rows of a column fit into memory together; raise InputError for chunks that are no images."""
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] == column]
    for chunk in chunks:
        size = chunk.total_uncompressed_size
        _refuse_bomb(path, column, size, chunk.total_compressed_size)
    largest = max((chunk.total_uncompressed_size for chunk in chunks), default=1)
    return max(1, min(BATCH, BATCH_BYTES // max(largest, 1)))


def _refuse_bomb(path: Path, column: str, size: int, packed: int) -> None:
    if size > max(BATCH_BYTES, BOMB * packed):
        raise InputError(
            f"source.path: {path}: column '{column}' unpacks {packed:,} bytes to {size:,} or more: these are not "
            "images; remove the file"
        )


def _images(path: Path, column: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and bytes of each row's image; no bytes where the row has none."""
    file = pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
    number = size = 0
    packed = path.stat().st_size
    for batch in file.iter_batches(_count_batch_rows(file, column, path), columns=[column]):
        for scalar in batch.column(0):
            value = scalar.as_py()
            content = value.get("bytes") if isinstance(value, dict) else value
            name = (value.get("path") if isinstance(value, dict) else None) or "image"
            if content is not None and not isinstance(content, bytes):
                raise InputError(f"source.image: column '{column}' holds {type(content).__name__}, not bytes")
            size += len(content or b"")
            _refuse_bomb(path, column, size, packed)
            yield f"{number:08d}/{PurePosixPath(name).name}", content or b""
            number += 1


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Return the names that Hugging Face's ``ClassLabel`` gives to a column's numbers, if there are any."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = described.get("info", {}).get("features", {}).get(label, {})
    names: list[str] | None = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return names
