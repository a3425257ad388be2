"""The room that the feature cache may take: on the disk, and as declared."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.features.cache import FeatureColumn
from tl_dagster.features.settings import Compute
from tl_dagster.store import files

__all__ = ["ColumnRows", "explain_shortage", "fits_activations", "has_room"]

ColumnRows = tuple[FeatureColumn, np.ndarray]  # a column, and which rows of a table are meant: bool


def explain_shortage(features: BackboneFeatures, compute: Compute, wanted: Sequence[ColumnRows]) -> str | None:
    """Return why some rows cannot be written, and the mend; None when they can.

    Args:
        features: whose columns they are.
        compute: the declared limits.
        wanted: columns, and which rows each shall get.
    """
    needed = sum(int(rows.sum()) * features.row_bytes(column) for column, rows in wanted)
    limit, free = compute.feature_cache_gb, files.free_bytes(features.cache)
    if needed > free:
        where = f"the disk of {features.cache} has {free / 1e9:,.2f} GB free"
    elif limit is not None and needed + (used := files.used_bytes(features.cache)) > limit * 1e9:
        where = f"compute.feature_cache_gb allows {limit:g} GB, of which {used / 1e9:,.2f} GB are used"
    else:
        return None
    return (
        f"the features need {needed / 1e9:,.2f} GB more, and {where}. Delete what no pipeline uses "
        "(tl-dagster cache prune --unused), declare fewer views or taps, another pooling or a smaller "
        "compute.activation_cache_gb, or put the store on a larger disk"
    )


def has_room(features: BackboneFeatures, compute: Compute, table: pd.DataFrame, column: FeatureColumn) -> bool:
    """Return whether the rows that a column lacks of a table of views fit on the disk, and into the cache's budget."""
    return explain_shortage(features, compute, [(column, column.missing(table["key"].tolist()))]) is None


def fits_activations(features: BackboneFeatures, compute: Compute, column: FeatureColumn, rows: int) -> bool:
    """Return whether so many rows of activations stay within ``compute.activation_cache_gb``."""
    return rows * features.row_bytes(column) <= compute.activation_cache_gb * 1e9
