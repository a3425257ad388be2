"""The interface of a source of labelled images, and what several sources share."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from tl_dagster.data.source_cache import SourceContext
from tl_dagster.runtime.errors import InputError, suggest
from tl_dagster.runtime.settings import Settings
from tl_dagster.store.digests import digest_columns

if TYPE_CHECKING:
    import pandas as pd


__all__ = [
    "CLIMBS",
    "COLUMNS",
    "SPLITS",
    "ImageSource",
    "Patterned",
    "SourceRow",
    "build_listing",
    "climbs_out",
    "is_visible",
    "may_be_image",
    "parse_splits",
]

COLUMNS = ("uri", "stamp", "label", "group", "split", "confidence", "problem")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".avif", ".tif"),
    *(".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico", ".pcx", ".sgi", ".heic", ".heif"),
}
# Hidden, or left in folders by systems.
HIDDEN = re.compile(r"(?:^|/)(?:\.|(?:thumbs\.db|desktop\.ini|__macosx)(?:/|$))", re.IGNORECASE)
# Path that tells the label, address, stamp, and why it cannot be used.
SourceRow = tuple[str, str, str | None, str | None]
CLIMBS = "the member's name climbs out of the archive"


class ImageSource(Settings, ABC):
    """Where labelled images are. A new source is one such class in one file, and a line in the union of sources."""

    @abstractmethod
    def listing(self, place: SourceContext) -> "pd.DataFrame":
        """One row per image, in any order; nothing is decoded.

        Returns:
            The columns :data:`COLUMNS`, texts but for ``confidence``: ``uri`` (see :mod:`tl_dagster.data.files`),
            ``stamp`` (None: read it again each time), ``label``, ``group``, ``split``, ``confidence`` (probability
            that the label is right) and ``problem`` (why it cannot be used, where that is known already).
            ``attrs["other_files"]``, where given, counts files that are no images by their names.

        Raises:
            InputError: the source is missing or cannot be read.
        """

    @abstractmethod
    def where(self, place: SourceContext) -> str:
        """What messages call it: its path or URL."""

    def present(self, place: SourceContext) -> bool:
        """Whether it is still there, when its files cannot be read any more."""
        return True

    def grouping(self) -> list[str | None]:
        """The settings that groups come from: with others, near copies are grouped anew."""
        return [getattr(self, "group", None), getattr(self, "pattern", None)]

    def signature(self, place: SourceContext) -> object:
        """Changes when the source does; found without reading images (JSON-serialisable)."""
        return digest_columns(self.listing(place).sort_values("uri"))


class Patterned(ImageSource):
    """A source whose labels are parts of paths."""

    pattern: str | None = None

    @field_validator("pattern")
    @classmethod
    def _has_a_label(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                names = re.compile(pattern).groupindex
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from error
            unknown = set(names) - {"label", "group", "split"}
            if "label" not in names or unknown:
                raise ValueError(f"'{pattern}': name its groups (?P<label>…), (?P<group>…) or (?P<split>…)")
        return pattern

    def tabled(self, found: Sequence[SourceRow]) -> "pd.DataFrame":
        """A listing from the files of a folder or archive; what is no image by its name is counted, not listed."""
        import pandas as pd

        images = [row for row in found if may_be_image(row[0])]
        names = ("path", "uri", "stamp", "problem")
        rows = {name: pd.Series([row[place] for row in images], dtype="str") for place, name in enumerate(names)}
        labelled = self.labelled(rows["path"])
        problem = rows["problem"].fillna(labelled["problem"])
        frame = build_listing(labelled.assign(uri=rows["uri"], stamp=rows["stamp"], problem=problem))
        frame.attrs["other_files"] = len(found) - len(images)
        return frame

    def labelled(self, paths: "pd.Series") -> "pd.DataFrame":
        """Label, group and split of relative POSIX paths; rows without a label have the problem why.

        Without a pattern, the first folder is the class, or the second one when every first folder is named like a
        split and one of them train: a class may be called "test".
        """
        import pandas as pd
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.pattern is not None:
            found = paths.str.extract(self.pattern)
            rows = found.reindex(columns=["label", "group", "split"])
            rows["label"] = rows["label"].where(rows["label"] != "")
            rows["split"] = parse_splits(rows["split"], "source.pattern")
            problem = f"the pattern {self.pattern} does not match the path"
        else:
            cut = pc.extract_regex(pa.array(paths, pa.large_string()), "(?s)^(?P<a>[^/]*)/?(?P<b>[^/]*)/?(?P<c>.*)$")
            parts = [pd.Series(pc.struct_field(cut, each), paths.index, dtype="str") for each in "abc"]
            first = set(parts[0][parts[1] != ""].str.lower().unique())
            given = bool(first) and first <= set(SPLITS) and "train" in {SPLITS[name] for name in first}
            deep = 1 if given else 0
            label = parts[deep].where(parts[deep + 1] != "")
            split = parts[0].str.lower().map(SPLITS) if given else None
            rows = pd.DataFrame({"label": label, "group": None, "split": split}, index=paths.index)
            problem = "lies in no class's folder"
        rows["problem"] = pd.Series(problem, index=rows.index, dtype=object).where(rows["label"].isna(), None)
        return rows.assign(label=rows["label"].fillna(""))


def build_listing(rows: "dict[str, Any] | pd.DataFrame") -> "pd.DataFrame":
    """A listing from its columns; those that are not given are empty."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    for column in COLUMNS:
        if column not in frame:
            frame[column] = None
    texts = {column: "str" for column in COLUMNS if column != "confidence"}
    frame = frame[list(COLUMNS)].astype({**texts, "confidence": "float64"})
    return frame.assign(group=frame["group"].where(frame["group"] != "", None).astype("str"))


def may_be_image(path: str) -> bool:
    """Whether a file may be an image by its name: it has an image's suffix, or none."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")  # not a PurePosixPath: a million names take seconds with it
    return not 0 < dot < len(name) - 1 or name[dot:].lower() in IMAGE_SUFFIXES


def is_visible(path: str) -> bool:
    """Whether people named it: no part is hidden or a system's."""
    return HIDDEN.search(path) is None


def climbs_out(member: str) -> bool:
    """Whether an archive member's name leads out of the folder that it would be extracted to."""
    parts = member.replace("\\", "/").split("/")
    return member.startswith(("/", "\\")) or ".." in parts or parts[0].endswith(":")


def parse_splits(values: "pd.Series", where: str) -> "pd.Series":
    """train, validation or test, from what people call them.

    Raises:
        InputError: a name that means none of them.
    """
    lowered = values.where(values.notna() & (values != ""), None).astype("str").str.strip().str.lower()
    for name in lowered.dropna().unique():
        if name not in SPLITS:
            raise InputError(f"{where}: split '{name}': {suggest(name, SPLITS)}")
    return lowered.map(SPLITS)
