"""Sources of labelled images: each lists what it has. Nothing is decoded here."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.sources.archive import ArchiveSource
from tl_dagster.data.sources.base import ImageSource
from tl_dagster.data.sources.folder import FolderSource
from tl_dagster.data.sources.manifest import Bins, ManifestSource
from tl_dagster.data.sources.parquet import ParquetSource
from tl_dagster.data.sources.torchvision import TorchvisionSource
from tl_dagster.data.sources.webdataset import WebDatasetSource
from tl_dagster.runtime.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


__all__ = [
    "ArchiveSource",
    "Bins",
    "FolderSource",
    "ImageSource",
    "ManifestSource",
    "ParquetSource",
    "Source",
    "TorchvisionSource",
    "WebDatasetSource",
    "list_images",
]

Source = Annotated[
    FolderSource | ManifestSource | ArchiveSource | ParquetSource | WebDatasetSource | TorchvisionSource,
    Field(discriminator="kind"),
]


def list_images(source: ImageSource, place: SourceContext) -> "pd.DataFrame":
    """A source's images, sorted by uri; see :meth:`ImageSource.listing`.

    Raises:
        InputError: the source is missing, empty, or has a single class.
    """
    frame = source.listing(place)
    usable = frame[frame["problem"].isna()]
    if usable.empty:
        reason = f", the first of {len(frame):,} files: {frame['problem'].iloc[0]}" if len(frame) else ""
        raise InputError(
            f"{source.where(place)} holds no images{reason}; give one sub-folder (or label) for each class"
        )
    classes = sorted(usable["label"].unique())
    if len(classes) < 2:
        raise InputError(
            f"{source.where(place)} has a single class, '{classes[0]}'; a classifier needs at least two: "
            "one sub-folder (or label) for each class"
        )
    other_files = frame.attrs.get("other_files", 0)
    frame = frame.sort_values("uri", ignore_index=True)
    frame.attrs["other_files"] = other_files
    return frame
