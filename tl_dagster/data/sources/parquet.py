"""Parquet files with a column of image bytes, in the layout of Hugging Face's image data sets."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal

from pydantic import Field

from tl_dagster.data.files import change_of
from tl_dagster.data.source_cache import SourceContext, write_tar
from tl_dagster.data.sources.archive import tar_members
from tl_dagster.data.sources.base import SPLITS, ImageSource, build_listing, parse_splits
from tl_dagster.data.sources.shards import expand
from tl_dagster.runtime.errors import InputError, printable, suggest

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["ParquetSource"]

BATCH = 256  # rows held at once


class ParquetSource(ImageSource):
    """Parquet files whose rows hold an image's bytes and its label.

    The image column holds bytes, or structs of ``bytes`` and ``path`` as Hugging Face writes them; its metadata names
    the classes of a column of numbers. The bytes are copied once into a tar file of the store, because a row of a
    Parquet file cannot be read alone.
    """

    kind: Literal["parquet"]
    path: str = Field(
        description="A file, a folder of files, a glob, or braces such as data/train-{00000..00003}.parquet; or a URL."
    )
    image: str = Field("image", description="Column of image bytes, or of structs of bytes and path.")
    label: str = Field("label", description="Column of class names, or of numbers that the file's metadata names.")
    group: str | None = Field(None, description="Column of group names; a group is never cut by a split.")
    split: str | None = Field(
        None, description="Column of given splits; nothing: from file names such as train-00000-of-00002.parquet."
    )

    def where(self, place: SourceContext) -> str:
        """The files."""
        return printable(place.uri(self.path))

    def signature(self, place: SourceContext) -> object:
        """The files' own stamps."""
        return [(uri, place.kept.stamp(uri)) for uri in self._files(place)]

    def listing(self, place: SourceContext) -> "pd.DataFrame":
        """See :meth:`ImageSource.listing`."""
        import pandas as pd

        return pd.concat([self._file(uri, place) for uri in self._files(place)], ignore_index=True)

    def _files(self, place: SourceContext) -> list[str]:
        return expand(place.uri(self.path), (".parquet",))

    def _file(self, uri: str, place: SourceContext) -> "pd.DataFrame":
        import pyarrow as pa
        import pyarrow.parquet as pq

        path, stamp = place.kept.local(uri)
        try:
            table = pq.ParquetFile(path)
            columns = table.schema_arrow.names
            for field in ("image", "label", "group", "split"):
                column = getattr(self, field)
                if column is not None and column not in columns:
                    raise InputError(f"source.{field}: {path} has no column '{column}': {suggest(column, columns)}")
            kept = place.kept.path(uri, stamp or change_of(path.stat()), self.image, name=f"{path.stem}.tar")
            place.kept.file(kept, lambda file: self._unpack(table, file))
            chosen = {column: None for column in (self.label, self.group, self.split) if column is not None}
            told = pq.read_table(path, columns=list(chosen)).to_pandas(integer_object_nulls=True)
            names = _class_names(table.schema_arrow, self.label)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"source.path: {path} is a damaged Parquet file: {error}") from error
        members = list(tar_members(kept, stamp, place.kept))
        labels = told[self.label]
        frame = build_listing(
            {
                "uri": [member[1] for member in members],
                "stamp": [member[2] for member in members],
                "label": labels.map(dict(enumerate(names))) if names else labels,
                "group": told[self.group] if self.group else None,
                "split": parse_splits(told[self.split], str(path)) if self.split else _split_of(path),
            }
        )
        frame["problem"] = frame["problem"].mask(frame["label"].isna(), "has no label")
        return frame.assign(label=frame["label"].fillna(""))

    def _unpack(self, table: Any, file: IO[bytes]) -> None:
        def rows() -> Iterator[tuple[str, bytes]]:
            number = 0
            for batch in table.iter_batches(BATCH, columns=[self.image]):
                for value in batch.column(0).to_pylist():
                    content = value.get("bytes") if isinstance(value, dict) else value
                    name = (value.get("path") if isinstance(value, dict) else None) or "image"
                    if content is not None and not isinstance(content, bytes):
                        raise InputError(
                            f"source.image: column '{self.image}' holds {type(content).__name__}, no bytes"
                        )
                    yield f"{number:08d}/{PurePosixPath(name).name}", content or b""
                    number += 1

        write_tar(file, rows())


def _class_names(schema: Any, label: str) -> list[str] | None:
    """The names that Hugging Face's ``ClassLabel`` gives to a column's numbers."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = described.get("info", {}).get("features", {}).get(label, {})
    names: list[str] | None = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return names


def _split_of(path: Path) -> str | None:
    return SPLITS.get(path.stem.partition("-")[0].lower())
