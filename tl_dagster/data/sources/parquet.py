"""Parquet files with a column of image bytes, in the layout of Hugging Face's image data sets."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tl_dagster.data.globs import expand
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.sources.base import SplitSource
from tl_dagster.runtime.errors import printable

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["ParquetSource"]


class ParquetSource(SplitSource):
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
        None,
        description="Column of given splits; nothing: from folders and file names, such as "
        "default/train/0000.parquet or train-00000-of-00002.parquet.",
    )

    def where(self, context: SourceContext) -> str:
        """Return the declared path or URL."""
        return printable(context.uri(self.path))

    def signature(self, context: SourceContext) -> object:
        """Return the files' own stamps."""
        return [(uri, context.cache.stamp(uri)) for uri in self._files(context)]

    def listing(self, context: SourceContext) -> "pd.DataFrame":
        """Return one row per row of the files; see :meth:`ImageSource.listing`."""
        from tl_dagster.data.parquet_images import list_parquet

        return list_parquet(self, context.uri(self.path), self._files(context), context.cache)

    def _files(self, context: SourceContext) -> list[str]:
        return expand(context.uri(self.path), (".parquet",))
