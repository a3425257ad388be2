"""Outputs that a forward pass for features goes through anyway, and that are kept with them."""

import numpy as np
import pandas as pd

from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.features.budget import ColumnRows, fits_activations
from tl_dagster.features.engine import LocalEngine
from tl_dagster.runtime.errors import InputError

__all__ = ["channel_maxima_of_training", "expected_activations", "plain_training"]


def plain_training(views: pd.DataFrame) -> np.ndarray:
    """Return which rows of a table of views are plain training images: bool (n,)."""
    plain: np.ndarray = ((views["split"] == "train") & (views["view"] == 0)).to_numpy()
    return plain


def channel_maxima_of_training(features: BackboneFeatures, views: pd.DataFrame) -> list[ColumnRows]:
    """Return the columns of each stage's channel maxima, for the plain training images."""
    plain = plain_training(views)
    return [(column, plain) for column in features.channel_maxima().values()]


def expected_activations(engine: LocalEngine, views: pd.DataFrame, depth: str) -> list[ColumnRows]:
    """Return the column that fine-tuning will most likely start from, before the transfer strategy has chosen.

    Args:
        engine: of the features.
        views: the table of views.
        depth: that fine-tuning will most likely have.
    """
    features = engine.features
    try:
        column = features.activations(features.backbone.info.frozen_through(features.taps, depth))
    except InputError:  # nothing lies below these taps: the strategy may well stop at their features
        return []
    if column is None or not fits_activations(features, engine.compute, column, len(views)):
        return []
    return [(column, np.ones(len(views), bool))]
