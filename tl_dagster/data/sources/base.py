"""The interface of a source of labelled images."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.source_files import SourceRow
from tl_dagster.data.split_names import SplitChoice
from tl_dagster.runtime.settings import Settings
from tl_dagster.store.digests import digest_columns

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["ImageSource", "Patterned", "SplitSource"]


class ImageSource(Settings, ABC):
    """The declaration of a source of labelled images. See :mod:`tl_dagster.data.sources` for how to add one."""

    @abstractmethod
    def listing(self, context: SourceContext) -> "pd.DataFrame":
        """Return one row per image, in any order; nothing is decoded.

        Returns:
            The columns :data:`tl_dagster.data.listing.COLUMNS`, texts but for ``confidence``: ``uri`` (see
            :mod:`tl_dagster.data.files`), ``stamp`` (None: read it again each time), ``label``, ``group``, ``split``,
            ``confidence`` (probability that the label is right) and ``problem`` (why it cannot be used, where that is
            known already). ``attrs["skipped"]``, where set, lists what is not looked at
            (:class:`tl_dagster.data.skipped.Skipped`).

        Raises:
            InputError: the source is missing or cannot be read.
        """

    @abstractmethod
    def where(self, context: SourceContext) -> str:
        """Return its path or URL, for messages."""

    def present(self, context: SourceContext) -> bool:
        """Return whether it is still there, when its files cannot be read any more."""
        return True

    def grouping(self) -> list[str | None]:
        """Return the settings that determine groups: when they change, near copies are grouped from scratch."""
        return [getattr(self, "group", None), getattr(self, "pattern", None)]

    def signature(self, context: SourceContext) -> object:
        """Return a JSON-serialisable value that changes when the source does; no image is read."""
        return digest_columns(self.listing(context).sort_values("uri"))


class SplitSource(ImageSource):
    """A source whose paths or columns may name splits."""

    split_names: dict[str, SplitChoice] | None = Field(
        None,
        description="What the source's own names of folders, shards or splits mean, such as {extra: train, unlabeled: "
        "ignore}: train, validation, test, ignore (left out) or none (not a split); before the usual names.",
    )

    @field_validator("split_names", mode="before")
    @classmethod
    def _text_keys(cls, names: Any) -> Any:
        return {str(name): choice for name, choice in names.items()} if isinstance(names, dict) else names  # {0: train}


class Patterned(SplitSource):
    """A source whose labels are parts of paths."""

    pattern: str | None = None

    @field_validator("pattern")
    @classmethod
    def _has_a_label(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                names = re.compile(pattern).groupindex
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from error
            unknown = set(names) - {"label", "group", "split"}
            if "label" not in names or unknown:
                raise ValueError(f"'{pattern}': name its groups (?P<label>…), (?P<group>…) or (?P<split>…)")
        return pattern

    def list_files(self, files: Sequence[SourceRow], context: SourceContext) -> "pd.DataFrame":
        """Return the listing of a folder's or archive's files; see :func:`tl_dagster.data.listing.list_files`."""
        from tl_dagster.data.listing import list_files

        return list_files(files, self.pattern, self.split_names, self.where(context))
