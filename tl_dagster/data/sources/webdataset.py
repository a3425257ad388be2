"""WebDataset shards: tar files in which the members of one sample share a name and differ in their suffix."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from tl_dagster.data.files import read
from tl_dagster.data.globs import expand
from tl_dagster.data.shard_splits import find_shard_splits
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.source_files import SourceRow, as_text, is_visible, may_be_image
from tl_dagster.data.sources.base import SplitSource
from tl_dagster.data.split_names import IGNORED, LEFT_OUT
from tl_dagster.data.tar_files import tar_members
from tl_dagster.runtime.errors import InputError, printable

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["WebDatasetSource"]

MEMBER = "an image of a sample, but not its source.image"
SUFFIXES = (".tar", ".tar.gz", ".tgz")


class _Row(NamedTuple):
    """An image of a shard: columns of the listing."""

    uri: str
    stamp: str | None
    label: str
    split: str | None
    problem: str | None


class WebDatasetSource(SplitSource):
    """Tar shards of samples such as 000017.jpg with 000017.cls (a class) or 000017.json (a field of it).

    A sample gives one image. Its name ends at the first dot of the file's name, and the rest names its members.
    """

    kind: Literal["webdataset"]
    path: str = Field(description="A shard, a folder, a glob, or braces such as train-{000..012}.tar; or a URL.")
    image: str | None = Field(
        None,
        min_length=1,
        description="Member that is the image, or several in order of preference: jpg;png;jpeg. Needed where a sample "
        "holds several images, such as a mask; the others are left out.",
    )
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
        """Return one row per sample; see :meth:`ImageSource.listing`. Folders and names of shards may name splits."""
        from tl_dagster.data.listing import build_listing
        from tl_dagster.data.single_labels import require_single_labels
        from tl_dagster.data.skipped import count_skipped

        uris = self._shards(context)
        splits = find_shard_splits(context.uri(self.path), uris, self.split_names)
        shards = [(uri, split) for uri, split in zip(uris, splits, strict=True) if split != IGNORED]
        others = [(uri, LEFT_OUT) for uri, split in zip(uris, splits, strict=True) if split == IGNORED]
        rows = [row for uri, split in shards for row in self._list_shard(uri, split, context, others)]
        frame = build_listing({name: [getattr(row, name) for row in rows] for name in _Row._fields})
        frame.attrs["skipped"] = count_skipped(others, [""] * len(others))
        require_single_labels(frame.loc[frame["problem"].isna(), "label"], self.where(context))
        return frame

    def _shards(self, context: SourceContext) -> list[str]:
        return expand(context.uri(self.path), SUFFIXES)

    def _list_shard(
        self, uri: str, split: str | None, context: SourceContext, others: list[tuple[str, str]]
    ) -> Iterator[_Row]:
        """Yield the samples of a shard, and add the images of theirs that are not the declared one to the others."""
        path, stamp = context.cache.local(uri)
        suffix, _, field = self.label.partition(".")
        for sample, members in _samples(path, stamp, context).items():
            image = self._image(members, f"{path}: sample '{printable(sample)}'")
            if image is None:
                continue
            images = [each for name, each in members.items() if may_be_image(f"x.{name}") and each.uri != image.uri]
            others.extend((f"{path.name}: {each.path}", MEMBER) for each in images)
            named = members.get(suffix)
            usable = named is not None and named.problem is None
            label = self._label(named.uri, field, f"{path}: {named.path}") if named and usable else ""
            yield _Row(image.uri, image.stamp, label, split, image.problem or (None if label else self._lacking(image)))

    def _lacking(self, image: SourceRow) -> str:
        """Return the problem of an image without a label."""
        name = image.path.rpartition("/")[2]
        key, _, ending = name.partition(".")
        if "." not in ending:
            return f"has no {self.label}"
        return (
            f"has no {self.label}: names end at their first dot in WebDataset, so that '{name}' is member '{ending}' "
            f"of sample '{key}'; write the shards again without dots in the samples' names"
        )

    def _image(self, members: dict[str, SourceRow], where: str) -> SourceRow | None:
        """Return the member of a sample that is its image; None where it has none."""
        images = {name: member for name, member in members.items() if may_be_image(f"x.{name}")}
        if self.image is not None:
            wanted = [name.strip().lower() for name in self.image.split(";")]
            chosen = next((members[name] for name in wanted if name in members), None)
            lacking = f"has no {' or '.join(wanted)}, as source.image names it"
            return chosen or next((member._replace(problem=lacking) for member in images.values()), None)
        if len(images) > 1:
            names = ", ".join(list(images)[:4])
            raise InputError(
                f"{printable(where)} holds {len(images)} images ({printable(names)}); declare which of them is the "
                f"image, such as source.image: {printable(min(images, key=len))} (the name of a sample ends at the "
                "first dot)"
            )
        return next(iter(images.values()), None)

    def _label(self, uri: str, field: str, where: str) -> str:
        """Return the class in a member; "" where it holds none."""
        text = as_text(read(uri)).strip()
        if field:
            text = _json_label(text, field, where)
        elif text.isdecimal():
            text = text.lstrip("0") or "0"  # the format's cls is a number: 007 is class 7
        if self.classes is None or not text:
            return text
        if not text.isdecimal() or int(text) >= len(self.classes):
            raise InputError(f"source.classes: {where} holds '{text}', not a number below {len(self.classes)}")
        return self.classes[int(text)]


def _samples(path: Path, stamp: str, context: SourceContext) -> dict[str, dict[str, SourceRow]]:
    """Return the members of each sample of a shard, by the part of their names after the first dot, in lower case.

    Raises:
        InputError: the shard holds a member twice: it is unclear what belongs together.
    """
    samples: dict[str, dict[str, SourceRow]] = {}
    for member in tar_members(path, stamp, context.cache):
        folder, _, last = member.path.rpartition("/")
        # WebDataset splits at the first dot of the last part: "a/b.seg.png" is sample "a/b", member "seg.png".
        key, _, name = last.partition(".")
        if not member.problem and not (name and is_visible(last)):
            continue
        members = samples.setdefault(f"{folder}/{key}".lstrip("/"), {})
        if members.setdefault(name.lower(), member) is not member:
            raise InputError(
                f"source.path: {path} holds '{printable(member.path)}' twice: which members are one sample is unclear; "
                "give each sample of a shard a name of its own"
            )
    return samples


def _json_label(text: str, field: str, where: str) -> str:
    """Return the class in a field of a JSON object; "" where it is null."""
    from tl_dagster.data.single_labels import several_labels

    try:
        value = json.loads(text)[field]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"source.label: {where} is not a JSON object with '{field}'") from error
    if isinstance(value, list | dict):
        raise several_labels(f"source.label: {where}: '{field}' holds several values")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # class 1.0 is class 1
    return "" if value is None else str(value)
