"""Sources of labelled images: each lists what it has. Nothing is decoded here.

A new source is one module of this package: a subclass of :class:`ImageSource` with a literal ``kind``, in its
``__all__``. It may be declared from then on.
"""

import pkgutil
from functools import reduce
from importlib import import_module
from operator import or_
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.sources.base import ImageSource
from tl_dagster.data.split_names import IGNORED, LEFT_OUT
from tl_dagster.runtime.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MODULES", "SOURCES", "ImageSource", "Source", "list_images"]


def _find_sources(module: ModuleType) -> list[type[ImageSource]]:
    public = [getattr(module, name) for name in module.__all__]
    classes = [item for item in public if isinstance(item, type) and issubclass(item, ImageSource)]
    return [source for source in classes if "kind" in source.model_fields]


MODULES = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
SOURCES = tuple(source for module in MODULES for source in _find_sources(module))

if TYPE_CHECKING:
    Source = ImageSource
else:
    Source = Annotated[reduce(or_, SOURCES), Field(discriminator="kind")]


def list_images(source: ImageSource, context: SourceContext) -> "pd.DataFrame":
    """Return a source's images, sorted by uri; see :meth:`ImageSource.listing` for the columns.

    Raises:
        InputError: the source is missing, empty, or has a single class.
    """
    frame = _leave_out_ignored(source.listing(context))
    usable = frame[frame["problem"].isna()]
    if usable.empty:
        first = frame.iloc[0] if len(frame) else None
        named = "" if first is None else f"{first['problem']} ({printable(first['uri'])})"
        reason = f", the first of {len(frame):,} files: {named}" if named else ""
        raise InputError(
            f"{source.where(context)} holds no images{reason or _skipped(frame)}; give one sub-folder (or label) for "
            "each class"
        )
    classes = sorted(usable["label"].unique())
    if len(classes) < 2:
        raise InputError(
            f"{source.where(context)} has a single class, '{classes[0]}'{_skipped(frame)}; a classifier needs at least "
            "two: one sub-folder (or label) for each class"
        )
    splits = sorted(usable["split"].fillna("train").unique())
    if "train" not in splits:
        raise InputError(
            f"{source.where(context)} gives images of the {' and '.join(splits)} split and none to train on; give "
            "these too, or declare in source.split_names what the names of splits mean here (none: not a split)"
        )
    return frame.sort_values("uri", ignore_index=True)


def _skipped(frame: "pd.DataFrame") -> str:
    """Return what is not looked at in class folders without an image, for a message."""
    labels = set(frame["label"])
    lost = [each for each in frame.attrs.get("skipped", []) if each.label not in labels]
    return f"; not looked at: {lost[0].first} ({lost[0].reason})" if lost else ""


def _leave_out_ignored(listed: "pd.DataFrame") -> "pd.DataFrame":
    """Return a listing without the rows that the declaration leaves out; they are counted in ``attrs["skipped"]``."""
    from tl_dagster.data.skipped import Skipped

    ignored = listed[listed["split"] == IGNORED]
    frame = listed.drop(index=ignored.index)
    if len(ignored):
        first = printable(ignored["uri"].min())
        frame.attrs["skipped"] = [Skipped("", LEFT_OUT, first, len(ignored)), *listed.attrs.get("skipped", [])]
    return frame
