"""A table of images: paths or URLs, labels, and optionally groups and given splits."""

import importlib.util
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from pydantic import Field, field_validator, model_validator

from tl_dagster.data.files import DAMAGED, local_uri, path_of, stamp_of
from tl_dagster.data.remote import is_remote, is_web, remote_stamps
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.sources.base import Patterned, build_listing, parse_splits
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

    @model_validator(mode="after")
    def _columns_exist(self) -> "ManifestSource":
        for field in self._read_fields():
            column = getattr(self, field)
            if self.columns is not None and column not in self.columns:
                raise ValueError(f"{field}: no column '{column}': {suggest(column, self.columns)}")
        if self.pattern is not None and self.bins is not None:
            raise ValueError("bins cuts a column of numbers, and pattern takes labels from paths: give one of them")
        return self

    def _read_fields(self) -> list[str]:
        fields = ["uri", "group", "split"] if self.pattern is not None else ["uri", "label", "group", "split"]
        return [field for field in fields if getattr(self, field) is not None]

    def where(self, place: SourceContext) -> str:
        """The table."""
        return printable(self._table(place))

    def _table(self, place: SourceContext) -> str:
        if self.package is None:
            return place.uri(self.path)
        try:
            spec = importlib.util.find_spec(self.package)
        except (ImportError, ValueError):  # of a package in one that is not there
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                f"source.package: '{self.package}' is not installed here; pip install {self.package.replace('_', '-')}"
            )
        return local_uri(Path(next(iter(spec.submodule_search_locations)), self.path))

    def listing(self, place: SourceContext) -> "pd.DataFrame":
        """See :meth:`ImageSource.listing`."""
        import pandas as pd

        address = self._table(place)
        path, _ = place.kept.local(address)
        table = self._read(path)
        for field in self._read_fields():
            column = getattr(self, field)
            if column not in table.columns:
                raise InputError(f"source.{field}: {path} has no column '{column}': {suggest(column, table.columns)}")
        needed = [self.uri] if self.pattern is not None else [self.uri, self.label]
        missing = (table[needed].isna() | (table[needed] == "")).any(axis=1)
        if missing.any():
            line = int(missing.to_numpy().argmax())
            names = " or ".join(f"'{name}'" for name in needed)
            raise InputError(f"{path}: row {line + 1} has an empty {names}; fill it in or remove the row")
        frame = build_listing(self._labels(table, path))
        base = place.uri(self.root) if self.root else address.rpartition("/")[0]
        frame["uri"] = [_absolute(uri, base) for uri in table[self.uri].astype("str")]
        told = pd.DataFrame(_stamps(frame["uri"].tolist()), columns=["stamp", "problem"], index=frame.index)
        return frame.assign(
            stamp=told["stamp"].astype("str"), problem=frame["problem"].fillna(told["problem"].astype("str"))
        )

    def _labels(self, table: "pd.DataFrame", path: Path) -> "pd.DataFrame":
        if self.pattern is not None:
            rows = self.labelled(table[self.uri].astype("str"))
        else:
            rows = table[[]].copy()
            rows["label"] = _binned(table[self.label], self.bins, path) if self.bins else table[self.label].astype(str)
            if self.bins and self.bins.soft_targets:
                rows["confidence"] = _confidences(table[self.label], self.bins, path)
        if self.group is not None:
            rows["group"] = table[self.group].astype("str").where(table[self.group].notna(), None)
        if self.split is not None:
            rows["split"] = parse_splits(table[self.split], str(path))
        return rows.assign(uri="")

    def _read(self, path: Path) -> "pd.DataFrame":
        import pandas as pd
        import pyarrow.parquet as pq

        separator = self.separator or {".tsv": "\t", ".tab": "\t"}.get(path.suffix.lower(), ",")
        try:
            if path.suffix.lower() == ".parquet":
                # Or one empty cell would turn group 1 into group 1.0, and move its images.
                table: pd.DataFrame = pq.ParquetFile(path).read().to_pandas(integer_object_nulls=True)
                return table
            return pd.read_csv(
                path,
                sep=r"\s+" if separator == "whitespace" else separator,
                names=self.columns,
                header=None if self.columns else "infer",
                index_col=False,
                dtype="str",
                keep_default_na=False,
                na_values=[""],
                encoding="utf-8-sig",
            )
        except (OSError, *DAMAGED) as error:
            raise InputError(f"{path} cannot be read as a table: {error}; check `separator` and `columns`") from error


def _absolute(uri: str, base: str) -> str:
    """The address of what a table says: a URL, or a path relative to a folder or URL."""
    if is_remote(uri):
        return uri
    if is_remote(base):
        return f"{base.rstrip('/')}/{quote(uri) if is_web(base) else uri}"
    path = path_of(uri)
    return local_uri(os.path.normpath(path if path[:1] == "/" else f"{path_of(base)}/{path}"))


def _stamps(uris: list[str]) -> list[tuple[str | None, str | None]]:
    """(stamp, problem) of each file."""
    remote = list(dict.fromkeys(uri for uri in uris if is_remote(uri)))
    told = dict(zip(remote, remote_stamps(remote), strict=True))
    return [told[uri] if uri in told else _looked(uri) for uri in uris]


def _looked(uri: str) -> tuple[str | None, str | None]:
    try:
        status = os.stat(path_of(uri))  # noqa: PTH116  (a million times: without a Path)
    except (OSError, ValueError) as error:
        return None, f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(status.st_mode):
        return None, "cannot be read: not a file"
    return stamp_of(status), None


def _binned(values: "pd.Series", bins: Bins, path: Path) -> "pd.Series":
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any():
        bad = values[numbers.isna()].iloc[0]
        raise InputError(
            f"{path}: label '{bad}' is not a number, and `bins` cuts numbers; remove `bins` or mend the row"
        )
    places = np.searchsorted(bins.edges, numbers.to_numpy(float), side="right")
    return pd.Series(np.array(bins.names, dtype=object)[places], index=values.index)


def _confidences(values: "pd.Series", bins: Bins, path: Path) -> "pd.Series":
    """The probability of a row's own class, from that of the second of two."""
    import pandas as pd

    values = pd.to_numeric(values)  # that they are numbers was seen when they were binned
    outside = values[~values.between(0, 1)]
    if len(outside):
        raise InputError(
            f"{path}: {outside.iloc[0]} is no probability, and bins.soft_targets takes the column as one; remove it"
        )
    second = values >= bins.edges[0]
    return values.where(second, 1 - values).astype(float)
