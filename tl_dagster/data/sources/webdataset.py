"""WebDataset shards: tar files in which the members of one sample share a name and differ in their suffix."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from tl_dagster.data.files import name_of, read
from tl_dagster.data.globs import expand
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.source_files import SPLITS, SourceRow, as_text, is_visible, may_be_image
from tl_dagster.data.sources.base import ImageSource
from tl_dagster.data.tar_files import tar_members
from tl_dagster.runtime.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["WebDatasetSource"]

SUFFIXES = (".tar", ".tar.gz", ".tgz")


class _Row(NamedTuple):
    """An image of a shard: columns of the listing."""

    uri: str
    stamp: str | None
    label: str
    split: str | None
    problem: str | None


class WebDatasetSource(ImageSource):
    """Tar shards of samples such as 000017.jpg with 000017.cls (a class) or 000017.json (a field of it)."""

    kind: Literal["webdataset"]
    path: str = Field(description="A shard, a folder, a glob, or braces such as train-{000..012}.tar; or a URL.")
    label: str = Field(
        "cls", description="Suffix of the member that holds the class, or json.FIELD for a field of a JSON member."
    )
    classes: list[str] | None = Field(None, description="Names of the classes, where the label is their number.")

    def where(self, context: SourceContext) -> str:
        """Return the declared path or URL."""
        return printable(context.uri(self.path))

    def signature(self, context: SourceContext) -> object:
        """Return the shards' own stamps."""
        return [(uri, context.cache.stamp(uri)) for uri in self._shards(context)]

    def listing(self, context: SourceContext) -> "pd.DataFrame":
        """Return one row per image; see :meth:`ImageSource.listing`. A shard such as train-000.tar names the split."""
        from tl_dagster.data.listing import build_listing

        rows = [row for uri in self._shards(context) for row in self._list_shard(uri, context)]
        return build_listing({name: [getattr(row, name) for row in rows] for name in _Row._fields})

    def _shards(self, context: SourceContext) -> list[str]:
        return expand(context.uri(self.path), SUFFIXES)

    def _list_shard(self, uri: str, context: SourceContext) -> Iterator[_Row]:
        path, stamp = context.cache.local(uri)
        suffix, _, field = self.label.partition(".")
        images: list[tuple[str, SourceRow]] = []
        labels: dict[str, str] = {}
        for member in tar_members(path, stamp, context.cache):
            # WebDataset splits at the first dot of the last part: "a/b.seg.png" is sample "a/b", member "seg.png".
            folder, _, last = member.path.rpartition("/")
            key, _, ending = last.partition(".")
            sample = f"{folder}/{key}"
            if ending.lower() == suffix and member.problem is None:
                labels[sample] = self._label(member.uri, field, f"{path}: {member.path}")
            elif member.problem or (ending and is_visible(last) and may_be_image(last)):
                images.append((sample, member))
        split = SPLITS.get(name_of(uri).partition("-")[0].partition(".")[0].lower())
        for sample, image in images:
            label = labels.get(sample, "")
            problem = image.problem or (None if label else f"has no {self.label}")
            yield _Row(image.uri, image.stamp, label, split, problem)

    def _label(self, uri: str, field: str, where: str) -> str:
        """Return the class in a member; "" where it holds none."""
        text = as_text(read(uri)).strip()
        if field:
            try:
                value = json.loads(text)[field]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"source.label: {where} is not a JSON object with '{field}'") from error
            text = "" if value is None else str(value)
        if self.classes is None or not text:
            return text
        if not text.isdecimal() or int(text) >= len(self.classes):
            raise InputError(f"source.classes: {where} holds '{text}', not a number below {len(self.classes)}")
        return self.classes[int(text)]
