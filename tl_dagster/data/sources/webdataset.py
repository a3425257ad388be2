"""WebDataset shards: tar files in which the members of one sample share a name and differ in their suffix."""

import json
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tl_dagster.data.files import name_of, read
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.sources.archive import tar_members
from tl_dagster.data.sources.base import SPLITS, ImageSource, build_listing, is_visible, may_be_image
from tl_dagster.data.sources.shards import expand
from tl_dagster.runtime.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["WebDatasetSource"]

SUFFIXES = (".tar", ".tar.gz", ".tgz")


class WebDatasetSource(ImageSource):
    """Tar shards of samples such as 000017.jpg with 000017.cls (a class) or 000017.json (a field of it)."""

    kind: Literal["webdataset"]
    path: str = Field(description="A shard, a folder, a glob, or braces such as train-{000..012}.tar; or a URL.")
    label: str = Field(
        "cls", description="Suffix of the member that holds the class, or json.FIELD for a field of a JSON member."
    )
    classes: list[str] | None = Field(None, description="Names of the classes, where the label is their number.")

    def where(self, place: SourceContext) -> str:
        """The shards."""
        return printable(place.uri(self.path))

    def signature(self, place: SourceContext) -> object:
        """The shards' own stamps."""
        return [(uri, place.kept.stamp(uri)) for uri in expand(place.uri(self.path), SUFFIXES)]

    def listing(self, place: SourceContext) -> "pd.DataFrame":
        """See :meth:`ImageSource.listing`; the split of a shard named like one (train-000.tar) is given."""
        import pandas as pd

        shards = expand(place.uri(self.path), SUFFIXES)
        return pd.concat([self._shard(uri, place) for uri in shards], ignore_index=True)

    def _shard(self, uri: str, place: SourceContext) -> "pd.DataFrame":
        import pandas as pd

        path, stamp = place.kept.local(uri)
        suffix, _, field = self.label.partition(".")
        images: list[tuple[str, str, str | None, str | None]] = []
        labels: dict[str, str] = {}
        for member, address, member_stamp, problem in tar_members(path, stamp, place.kept):
            # WebDataset splits at the first dot of the last part: "a/b.seg.png" is sample "a/b", member "seg.png".
            folder, _, last = member.rpartition("/")
            key, _, ending = last.partition(".")
            sample = f"{folder}/{key}"
            if ending.lower() == suffix and problem is None:
                labels[sample] = self._label(address, field, f"{path}: {member}")
            elif problem or (ending and is_visible(last) and may_be_image(last)):
                images.append((sample, address, member_stamp, problem))
        split = SPLITS.get(name_of(uri).partition("-")[0].partition(".")[0].lower())
        rows = [
            (
                address,
                told,
                labels.get(key, ""),
                split,
                problem or (None if labels.get(key) else f"has no {self.label}"),
            )
            for key, address, told, problem in images
        ]
        return build_listing(pd.DataFrame(rows, columns=["uri", "stamp", "label", "split", "problem"]))

    def _label(self, address: str, field: str, where: str) -> str:
        text = read(address).decode("utf-8", "replace").strip()
        if field:
            try:
                value = json.loads(text)[field]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"source.label: {where} is no JSON object with '{field}'") from error
            text = "" if value is None else str(value)
        if self.classes is None or not text:
            return text
        if not text.isdecimal() or int(text) >= len(self.classes):
            raise InputError(f"source.classes: {where} holds '{text}', no number below {len(self.classes)}")
        return self.classes[int(text)]
