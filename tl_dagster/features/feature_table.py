"""The features of a pipeline's views, as the artifact of bottleneck_features names them: keys, not values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from tl_dagster.data.splits import read_views
from tl_dagster.features.cache import ConcatFeatures, FeatureColumn
from tl_dagster.store.digests import digest

__all__ = ["FeatureTable", "column_names", "write_columns"]

COLUMNS = "columns.json"


@dataclass(frozen=True)
class FeatureTable:
    """A table of views with their features at each tap, read from the feature cache when they are used.

    Attributes:
        views: one row per view; see :func:`tl_dagster.data.splits.read_views`.
        columns: declared tap → its column of the feature cache, in declared order.
    """

    views: pd.DataFrame
    columns: Mapping[str, FeatureColumn]

    @classmethod
    def open(cls, path: Path, cache: Path) -> Self:
        """Return the table of a bottleneck_features artifact.

        Args:
            path: the artifact's folder.
            cache: folder of the feature cache.
        """
        return cls(read_views(path), {each["tap"]: FeatureColumn(cache, each["recipe"]) for each in _stored(path)})

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split's views: (n,) int64."""
        return np.flatnonzero(self.views["split"] == split)

    def has_features(self, rows: np.ndarray, taps: Sequence[str]) -> np.ndarray:
        """Return which rows have their features in the cache: bool (n,); `prune` deletes those of lost images.

        Args:
            rows: (n,) row numbers of the table.
            taps: declared names.
        """
        keys = self.views["key"].iloc[rows].tolist()
        found: np.ndarray = ~np.logical_or.reduce([self.columns[tap].missing(keys) for tap in taps])
        return found

    def features(self, rows: np.ndarray | None = None, taps: Sequence[str] | None = None) -> ConcatFeatures:
        """Return the features of views, taps side by side, read when they are indexed.

        Args:
            rows: (n,) row numbers of the table; all when not given.
            taps: declared names, in any order; all when not given.

        Raises:
            InputError: a view has no row in the cache.
        """
        keys = (self.views if rows is None else self.views.iloc[rows])["key"].tolist()
        columns = [column for tap, column in self.columns.items() if taps is None or tap in taps]
        return ConcatFeatures(columns, keys)


def write_columns(folder: Path, columns: Mapping[str, FeatureColumn]) -> None:
    """Write which columns an artifact's features are in.

    Args:
        folder: the artifact's.
        columns: declared tap → column.
    """
    stored = [{"tap": tap, "recipe": column.key} for tap, column in columns.items()]
    (folder / COLUMNS).write_text(json.dumps(stored, indent=1))


def column_names(path: Path) -> list[str]:
    """Return the names of the columns that an artifact's features are in; none for an artifact of another stage."""
    return [digest(each["recipe"]) for each in _stored(path)] if (path / COLUMNS).exists() else []


def _stored(path: Path) -> list[dict[str, Any]]:
    stored: list[dict[str, Any]] = json.loads((path / COLUMNS).read_text())
    return stored
