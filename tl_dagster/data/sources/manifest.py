"""A table of images: paths or URLs, labels, and optionally groups and given splits."""

import codecs
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from tl_dagster.data.files import local_uri
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.sources.base import Patterned
from tl_dagster.runtime.errors import InputError, printable, suggest
from tl_dagster.runtime.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["Bins", "ManifestSource"]


class Bins(Settings):
    """A numeric column cut into named classes; a value equal to an edge belongs to the class above it."""

    edges: list[float] = Field(min_length=1, description="Rising cut points between the classes.")
    names: list[str] = Field(min_length=2, description="One class name more than there are edges.")
    soft_targets: bool = Field(
        False,
        description="The column is the probability of the second of two classes: train on it, not on the class alone.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Bins":
        if len(self.names) != len(self.edges) + 1:
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} classes, not {len(self.names)} names")
        if sorted(set(self.edges)) != self.edges:
            raise ValueError(f"edges must rise, got {self.edges}")
        if self.soft_targets and len(self.names) != 2:
            raise ValueError(f"soft_targets needs exactly two classes, got {len(self.names)}")
        return self


class ManifestSource(Patterned):
    """A table (CSV, TSV or Parquet) with a column of image paths and a column of labels."""

    kind: Literal["manifest"]
    path: str = Field(
        description="The table, relative to the project's root, or to `package` when that is given; or a URL."
    )
    package: str | None = Field(None, description="An installed Python package that holds the table and images.")
    separator: str | None = Field(
        None, min_length=1, description="Column separator of a text table, or 'whitespace'; nothing: by the suffix."
    )
    encoding: str | None = Field(
        None, description="Character encoding of a text table, such as cp1252 or shift_jis; nothing: UTF-8."
    )
    columns: list[str] | None = Field(None, description="Column names of a text table that has no header line.")
    uri: str = Field("uri", description="Column of image paths, relative to the table's folder (or `root`), or URLs.")
    label: str = Field("label", description="Column of class names (or of numbers, with `bins`).")
    pattern: str | None = Field(
        None, description="Regular expression searched in the image path instead of a label column, as in a folder."
    )
    bins: Bins | None = Field(None, description="Cut a numeric label column into named classes.")
    group: str | None = Field(None, description="Column of group names; a group is never cut by a split.")
    split: str | None = Field(None, description="Column of given splits: train, validation or test.")
    root: str | None = Field(
        None, description="Folder or URL that image paths are relative to, when not the table's own."
    )

    @field_validator("separator")
    @classmethod
    def _known_separator(cls, separator: str | None) -> str | None:
        if separator is not None and len(separator) > 1 and separator != "whitespace":
            raise ValueError(f"'{separator}': one character, or 'whitespace'")
        return separator

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            return encoding if encoding is None else codecs.lookup(encoding).name
        except LookupError as error:
            raise ValueError(f"'{encoding}' is not an encoding of Python, such as cp1252, utf-16 or big5") from error

    @model_serializer(mode="wrap")
    def _without_default_encoding(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the encoding out where it is not given: what was declared before it was known stays the same."""
        values: dict[str, Any] = serialize(self)
        return values if self.encoding else {name: value for name, value in values.items() if name != "encoding"}

    @model_validator(mode="after")
    def _columns_exist(self) -> "ManifestSource":
        for field in self.read_fields():
            column = getattr(self, field)
            if self.columns is not None and column not in self.columns:
                raise ValueError(f"{field}: no column '{column}': {suggest(column, self.columns)}")
        if self.pattern is not None and self.bins is not None:
            raise ValueError("bins cuts a column of numbers, and pattern takes labels from paths: give one of them")
        return self

    def read_fields(self) -> list[str]:
        """Return the names of the fields that name a column to read."""
        fields = ["uri", "group", "split"] if self.pattern is not None else ["uri", "label", "group", "split"]
        return [field for field in fields if getattr(self, field) is not None]

    def where(self, context: SourceContext) -> str:
        """Return the table's path or URL."""
        return printable(self._table(context))

    def _table(self, context: SourceContext) -> str:
        if self.package is None:
            return context.uri(self.path)
        try:
            spec = importlib.util.find_spec(self.package)
        except (ImportError, ValueError):  # of a package in one that is not there
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                f"source.package: '{self.package}' is not installed here; pip install {self.package.replace('_', '-')}"
            )
        return local_uri(Path(next(iter(spec.submodule_search_locations)), self.path))

    def listing(self, context: SourceContext) -> "pd.DataFrame":
        """Return one row per row of the table; see :meth:`ImageSource.listing`."""
        from tl_dagster.data.image_tables import list_table

        address = self._table(context)
        path, _ = context.cache.local(address)
        return list_table(self, path, context.uri(self.root) if self.root else address.rpartition("/")[0])
